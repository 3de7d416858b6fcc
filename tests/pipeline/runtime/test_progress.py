import pytest

from pipeline.runtime import progress


@pytest.mark.parametrize("terminal", [False, True])
def test_items_pass_unchanged(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1" if terminal else "0")
    assert list(progress.track(iter("abc"), 3, "reading")) == ["a", "b", "c"]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("reading" in printed.err) == terminal


def test_plain_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1)
    list(progress.track(range(2000), 2000, "reading"))
    captured = capsys.readouterr()
    assert captured.out == ""  # stdout is for results alone
    printed = captured.err.splitlines()
    assert printed[0] == "reading: 1 of 2,000"
    assert printed[-1] == "reading: 2,000 of 2,000"
