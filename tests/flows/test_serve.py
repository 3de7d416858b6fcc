"""`python -m flows.serve` as its users start it: real servers, real deployments, real runs."""

import http.server
import json
import os
import signal
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from flows.serving.alerts import NAME, Alerts
from flows.stages.process_groups import end_groups
from tests.flows import api
from tests.flows.conftest import prefect_variables
from tests.flows.project import Project, free_port, tracked_project, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Served:
    """A project that is served, and the messages that its alerts sent."""

    def __init__(self, project: Project, ports: dict[str, str]) -> None:
        self.project = project
        self.ports = ports
        self.messages: list[dict[str, Any]] = []
        self.log = project.folder / "serve.log"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        # A proxy that answers nothing: what runs on this machine is reached without it.
        environment = {**self.ports, "PREFECT_RUNNER_POLL_FREQUENCY": "1", "http_proxy": "http://127.0.0.1:9"}
        with self.log.open("w") as log:
            self.process = self.project.start("-m", "flows.serve", environment=environment, output=log)
        wait_until(self.is_up, "serving", seconds=240)

    def is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return "Ctrl-C ends all of this" in self.log.read_text()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    project = tracked_project(tmp_path_factory.mktemp("serve") / "project")
    prefect, mlflow = free_port(), free_port()
    served = Served(project, {"PREFECT_PORT": str(prefect), "MLFLOW_PORT": str(mlflow)})
    variables = {
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
        "PREFECT_HOME": str(project.folder / ".prefect"),
    }
    try:
        served.start()
        with prefect_variables(variables), receiver(served.messages) as url:
            Alerts(url=SecretStr(url)).save(NAME, overwrite=True)  # as a user fills it in
            yield served
    finally:
        assert served.process is not None
        end_groups([served.process])
        for line in project.processes():
            raise AssertionError(f"still running: {line}")


class receiver:
    """An HTTP server that keeps the JSON it is sent; gives its address in Apprise's manner."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"json://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *exception: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def mlflow_statuses(project: Project) -> list[str]:
    with sqlite3.connect(project.folder / "mlflow.db") as database:
        return [status for (status,) in database.execute("select status from runs")]


def test_scheduled_runs_are_there_to_be_seen(served: Served) -> None:
    def scheduled() -> dict[str, list[datetime]]:
        return {flow: api.scheduled_times(flow) for flow in ("pipeline", "search", "retrain")}

    wait_until(lambda: scheduled()["retrain"] and scheduled()["search"], "the server plans runs")
    times = scheduled()
    assert times["pipeline"] == []
    nights, weeks = times["retrain"], times["search"]
    assert nights[0] > datetime.now(UTC)
    assert {(time.hour, time.minute) for time in nights} == {(1, 0)}
    assert {(time.weekday(), time.hour, time.minute) for time in weeks} == {(6, 3, 0)}
    assert f"next at {nights[0]:%Y-%m-%d %H:%M} UTC" in served.log.read_text()


def test_cancelling_ends_the_training_and_the_next_run_continues(served: Served) -> None:
    from prefect.states import Cancelling

    project = served.project
    run = api.start_run("pipeline/pipeline")
    wait_until(lambda: project.started("tracked"), "the stage runs")
    assert mlflow_statuses(project) == ["RUNNING"]

    second = api.start_run("pipeline/pipeline")  # one at a time
    wait_until(lambda: api.state_name(second) == "Cancelled", "the second run is cancelled")

    api.set_state(run, Cancelling())
    wait_until(lambda: api.state_name(run) == "Cancelled", "the run is cancelled")
    assert [line for line in project.processes() if "tracked" in line or "dvc" in line] == []
    assert mlflow_statuses(project) == ["KILLED"]
    locks = json.loads((project.folder / ".dvc" / "tmp" / "rwlock").read_text())
    assert not locks.get("read")
    assert not locks.get("write")
    wait_until(lambda: served.messages, "a message")
    assert served.messages[0]["title"].startswith("pipeline: run ")
    assert str(run) in served.messages[0]["message"]

    (project.folder / "hurry").touch()
    third = api.start_run("pipeline/pipeline")
    wait_until(lambda: api.state_name(third) == "Completed", "the next run")
    assert mlflow_statuses(project) == ["FINISHED"]  # the same run, continued


def test_retrying_a_failed_run_continues_where_it_failed(served: Served) -> None:
    from prefect.states import AwaitingRetry

    project = served.project
    (project.folder / "fail-compare").touch()
    stages = project.folder / "dvc.yaml"
    stages.write_text(stages.read_text().replace("compare 0.1", "compare 0.2"))  # it has to run again
    served.messages.clear()
    run = api.start_run("pipeline/pipeline", {"targets": ["compare"], "force": False})
    wait_until(lambda: api.state_name(run) == "Failed", "the run fails")
    assert "compare failed: compare was told to fail" in str(api.read_run(run).state)
    wait_until(lambda: served.messages, "a message")
    assert "compare was told to fail" in served.messages[0]["message"]

    (project.folder / "fail-compare").unlink()
    tracked = (project.folder / "times" / "tracked.started").stat().st_mtime
    api.set_state(run, AwaitingRetry(scheduled_time=datetime.now(UTC)))  # as the UI's button does
    wait_until(lambda: api.state_name(run) == "Completed", "the retry completes")
    assert api.read_run(run).run_count == 2
    assert (project.folder / "outs" / "compare").exists()
    assert (project.folder / "times" / "tracked.started").stat().st_mtime == tracked


def test_a_busy_port_is_a_sentence(served: Served) -> None:
    output = served.project.run("-m", "flows.serve", environment=served.ports, expect=2)
    port = served.ports["PREFECT_PORT"]
    assert (
        output == f"error: port {port} is in use; end what uses it, or choose another with PREFECT_PORT=...\n"
    )


def test_sigterm_ends_the_runs_and_the_servers(served: Served) -> None:
    project = served.project
    (project.folder / "hurry").unlink(missing_ok=True)
    (project.folder / "times" / "tracked.started").unlink()
    run = api.start_run("pipeline/pipeline", {"force": True})
    wait_until(lambda: project.started("tracked"), "the stage runs")
    assert served.process is not None
    os.kill(served.process.pid, signal.SIGTERM)
    assert served.process.wait(60) == 0, served.log.read_text()
    assert project.processes() == []
    for port in served.ports.values():
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(port))) != 0
    with sqlite3.connect(project.folder / ".prefect" / "prefect.db") as database:
        states = dict(database.execute("select id, state_name from flow_run"))
        assert states[str(run)] == "Cancelled"
    assert mlflow_statuses(project)[-1] == "KILLED"
    assert (
        "Traceback" not in served.log.read_text().split("Ending the runs")[-1].split("KeyboardInterrupt")[-1]
    )
