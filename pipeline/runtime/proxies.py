"""Servers on this machine - Prefect's, MLflow's, Ray's - are reached past any proxy."""

import os
from urllib.request import getproxies_environment

HERE = ("localhost", "127.0.0.1", "::1")
NAMES = ("no_proxy", "NO_PROXY")  # some libraries read the one, some the other


def go_past_proxies() -> None:
    """Except this machine from the proxies of the environment, here and in what is started from here."""
    if not getproxies_environment().keys() - {"no"}:
        return
    excepted = [host.strip() for name in NAMES for host in os.environ.get(name, "").split(",")]
    hosts = ",".join(dict.fromkeys(host for host in (*excepted, *HERE) if host))
    os.environ.update(dict.fromkeys(NAMES, hosts))
