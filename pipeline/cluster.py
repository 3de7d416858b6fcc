"""A connection to Ray: a private one on this machine, or a cluster that runs already."""

import contextlib
import logging
import math
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stochca.devices import cores_of_process
from stochca.errors import UserError

CONNECT_SECONDS = 10.0
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # tasks without a GPU still see those of the machine
    "RAY_TRAIN_METRICS_ENABLED": "0",
}


@contextlib.contextmanager
def connected(address: str, *, key: str, cpus: float, gpus: float) -> Iterator[None]:
    """Ray for the duration of the block; a private one ends with it, with all that runs on it.

    Args:
        address: local, auto, HOST:PORT or ray://HOST:PORT.
        key: where `address` was set, for the sentence of an error.
        cpus: what the block needs altogether. A private Ray offers at least so many, however few cores
            there are; the processes then share them.
        gpus: likewise, but they must be there.

    Raises:
        UserError: nothing answers at the address, or this machine has too few GPUs.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if address != "local":
        _check_answers(address, key)
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    # Workers import the project from its folder, which they share, whatever is installed on their machine.
    paths = [str(Path.cwd()), os.environ.get("PYTHONPATH", "")]
    quiet["runtime_env"] = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, paths))}}
    # A short path, because sockets lie in it.
    session = Path(tempfile.mkdtemp(prefix="stochca-ray-")) if address == "local" else None
    try:
        with _sigterm_stays_ours():
            if address == "local":
                cores = max(cores_of_process(), math.ceil(cpus))
                ray.init("local", num_cpus=cores, include_dashboard=False, _temp_dir=str(session), **quiet)
            else:
                try:
                    ray.init(address, **quiet)
                except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                    raise UserError(_refused(address, key, error)) from None
        found = ray.cluster_resources().get("GPU", 0)
        if address == "local" and gpus > found:
            raise UserError(
                f"{gpus:g} GPUs are needed, but this machine has {found:g}; ask for fewer, or set {key} to "
                "the address of a cluster with them"
            )
        yield
    finally:
        ray.shutdown()
        if session is not None:
            shutil.rmtree(session, ignore_errors=True)


@contextlib.contextmanager
def _sigterm_stays_ours() -> Iterator[None]:
    """Keep Ray from taking over SIGTERM while it starts.

    Its own handler would end this process past its tracking. And its processes, when the whole process
    group is told to end, must not go first: they inherit that the signal is held back, and end with us.
    """
    handler = signal.getsignal(signal.SIGTERM)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _check_answers(address: str, key: str) -> None:
    """Ray itself would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(_unusable(address, key, error)) from None


def _refused(address: str, key: str, error: Exception) -> str:
    if address == "auto":
        return _unusable(address, key, error)
    return (
        f"{key} {address} answers, but not as Ray ({_first_line(error)}); check that it is the head of a "
        "cluster of the same version; where that asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def _unusable(address: str, key: str, error: Exception) -> str:
    if address == "auto":
        return (
            f"{key} is auto, but this machine belongs to no Ray cluster; start one with `ray start --head`, "
            f"or set {key} to local"
        )
    return (
        f"no Ray answers at {key} {address} ({_first_line(error)}); start it with `ray start --head`, give "
        "another, or say local"
    )
