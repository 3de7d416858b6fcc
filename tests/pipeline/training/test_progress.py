import pytest

from pipeline.training.progress import TrainingProgress
from stochca.training.callbacks import EvalEvent, StepEvent

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def step(number: int) -> StepEvent:
    return StepEvent(step=number, steps=9, loss=0.5, lr=0.1, images_per_second=5.0)


def test_the_end_gives_the_cursor_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    progress = TrainingProgress("finetune-all-0")
    progress.on_end()  # interrupted before training started
    assert capsys.readouterr().out == ""
    progress.on_start(0, 9)
    progress.on_step(step(1))
    progress.on_end()
    progress.on_end()
    printed = capsys.readouterr().out
    assert HIDE_CURSOR in printed
    assert printed.rfind(SHOW_CURSOR) > printed.rfind(HIDE_CURSOR)


def test_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    progress = TrainingProgress("finetune-all-0")
    progress.on_start(3, 9)
    progress.on_step(step(4))
    progress.on_eval(
        EvalEvent(4, 9, loss=0.25, accuracy=0.75, is_best=True, selection="accuracy", value=0.75)
    )
    progress.on_end()
    assert capsys.readouterr().out.splitlines() == [
        "finetune-all-0: continues after step 3 of 9",
        "finetune-all-0: step 4 of 9, training loss 0.500, validation accuracy 0.750 (best so far)",
    ]
