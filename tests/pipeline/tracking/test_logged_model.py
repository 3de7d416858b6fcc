import pytest

from pipeline.tracking import logged_model as served


def test_requirements_can_be_had_from_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "version", {"torch": "2.13.0+cpu"}.get)
    monkeypatch.setattr(served, "REQUIREMENTS", ("torch",))
    assert served.requirements() == ["torch==2.13.0"]
