"""The servers of Prefect and MLflow on this machine: started, waited for, and ended with their children."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.stages.process_groups import end_groups
from stochca.errors import UserError

HOST = "127.0.0.1"
HOME = Path(".prefect")  # Prefect's database, and the servers' logs
SECONDS_TO_START = 120.0
SECONDS_TO_ANSWER = 8.0
SECONDS_BETWEEN_LINES = 5.0
WITHOUT_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # eight processes, which tracking never asks


@dataclass(frozen=True)
class Server:
    """A server to start: its command, and the address that answers when it is ready."""

    name: str
    command: list[str]
    port: int
    health: str

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


def prefect_server() -> Server:
    port = _port("PREFECT_PORT", 4200)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    return Server("Prefect", command, port, "/api/health")


def mlflow_server() -> Server:
    """MLflow over the project's own database; runs stay readable without it.

    Raises:
        UserError: what should be that database is none, or can't be written to.
    """
    from pipeline.runtime.paths import ARTIFACTS, DATABASE, database_uri, of_the_project
    from pipeline.tracking.moved import follow_folder
    from pipeline.tracking.server import why_unusable

    try:
        follow_folder(database_uri())
    except sqlite3.Error as error:
        raise UserError(why_unusable(None, str(DATABASE), error)) from None
    port = _port("MLFLOW_PORT", 5000)
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", database_uri()),
        *("--default-artifact-root", of_the_project(ARTIFACTS).as_uri(), "--no-serve-artifacts"),
    ]
    return Server("MLflow", command, port, "/health")


def _port(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise UserError(f"{variable} must be a port, 1 to 65535, found {text!r}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, int(text)))
        except OSError:
            raise UserError(
                f"port {text} is in use; end what uses it, or choose another with {variable}=..."
            ) from None
    return int(text)


@contextmanager
def running(servers: list[Server]) -> Iterator[None]:
    """Start servers, wait until all answer, and end them with everything that they started.

    Raises:
        UserError: one ended, or did not answer in time; the sentence says where its log is.
    """
    HOME.mkdir(exist_ok=True)
    bypass_proxies()
    processes: list[subprocess.Popen[str]] = []
    try:
        for server in servers:
            with _log(server).open("w") as log:
                processes.append(
                    subprocess.Popen(
                        server.command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        text=True,
                        env={**WITHOUT_JOBS, **os.environ},
                        start_new_session=True,  # Ctrl-C is ours: runs are ended before their servers
                    )
                )
        for server, process in zip(servers, processes, strict=True):
            _wait(server, process)
        yield
    finally:
        end_groups(processes, gently=signal.SIGTERM)


def bypass_proxies() -> None:
    """Let this process and its children reach servers on this machine directly, whatever proxy is set."""
    for variable in ("no_proxy", "NO_PROXY"):
        hosts = [host for host in os.environ.get(variable, "").split(",") if host]
        os.environ[variable] = ",".join(dict.fromkeys([*hosts, HOST, "localhost"]))


def _log(server: Server) -> Path:
    return HOME / f"{server.name.lower()}.log"


def _wait(server: Server, process: subprocess.Popen[str]) -> None:
    print(f"{server.name}: starting", flush=True)
    started = shown = time.monotonic()
    while not answers(server.url + server.health, timeout=2):
        now = time.monotonic()
        if process.poll() is not None:
            raise UserError(
                f"{server.name}'s server ended with code {process.returncode}; see {_log(server)}"
            )
        if now - started > SECONDS_TO_START:
            raise UserError(
                f"{server.name}'s server does not answer after {SECONDS_TO_START:.0f} s; see {_log(server)}"
            )
        if now - shown > SECONDS_BETWEEN_LINES:
            shown = now
            print(f"{server.name}: starting, {now - started:.0f} s", flush=True)
        time.sleep(0.2)
    print(f"{server.name}: ready after {time.monotonic() - started:.0f} s", flush=True)


def answers(url: str, timeout: float) -> bool:
    """Whether anything answers at an HTTP address, be it with an error."""
    try:
        with urllib.request.urlopen(url, timeout=timeout):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def check_prefect_server() -> None:
    """Raise `UserError` when PREFECT_API_URL is set and nothing answers there."""
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return
    deadline = time.monotonic() + SECONDS_TO_ANSWER
    while not answers(f"{url.rstrip('/')}/health", timeout=4):
        if time.monotonic() > deadline:
            raise UserError(
                f"no Prefect server answers at PREFECT_API_URL {url}; start it, set PREFECT_API_URL to one "
                "that runs, or unset it to use one on this machine"
            )
        time.sleep(0.5)
