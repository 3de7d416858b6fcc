import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flows.serving.servers import answers
from flows.stages.process_groups import end_groups
from tests.flows.project import clean_environment, wait_until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def prefect_variables(values: dict[str, str]) -> Iterator[None]:
    """Environment variables, and Prefect's settings in this process, for a while."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    updates = {PREFECT_API_URL: values["PREFECT_API_URL"], PREFECT_HOME: values["PREFECT_HOME"]}
    with temporary_settings(updates):
        yield
    for key, value in before.items():
        if value is None:
            del os.environ[key]
        else:
            os.environ[key] = value


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real Prefect server; gives the variables that point at it."""
    home = tmp_path_factory.mktemp("prefect")
    port = free_port()
    variables = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "INFO",
    }
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            cwd=home,
            env={**clean_environment(), **variables},
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}/api"
        wait_until(lambda: answers(f"{url}/health", timeout=2), f"Prefect at {url}", seconds=150)
        variables["PREFECT_API_URL"] = url
        with prefect_variables(variables):
            yield variables
    finally:
        end_groups([server], gently=signal.SIGTERM)
