from pathlib import Path

import pytest

from flows.serving import servers
from stochca.errors import UserError


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "SECONDS_TO_ANSWER", 0.5)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(UserError) as caught:
        servers.check_prefect_server()
    assert str(caught.value) == (
        "no Prefect server answers at PREFECT_API_URL http://127.0.0.1:9/api; start it, set "
        "PREFECT_API_URL to one that runs, or unset it to use one on this machine"
    )


def test_no_server_is_asked_where_none_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    servers.check_prefect_server()


@pytest.mark.parametrize("text", ["many", "0", "65536", "-1"])
def test_a_port_is_a_number(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_PORT", text)
    with pytest.raises(UserError, match=f"PREFECT_PORT must be a port, 1 to 65535, found '{text}'"):
        servers.prefect_server()


def test_a_file_that_is_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mlflow.db").write_text("notes of mine, which are no database\n" * 40)
    with pytest.raises(UserError, match=r"mlflow.db can't be used as MLflow's database: .*; move it away"):
        servers.mlflow_server()
