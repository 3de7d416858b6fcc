import json
from pathlib import Path

import pytest

from pipeline.runtime.paths import RUNS
from pipeline.tracking.run_folder import MLFLOW, PUBLISHED, RUN, RunFolder, discard_finished, held


def begin() -> RunFolder:
    return RunFolder.begin(RUNS / "a", "trial", "a")


def test_who_followed_before_and_what_it_had_sent_say_nothing_of_a_run_that_goes_on() -> None:
    """In a container, process 7 of today may be process 7 of yesterday again."""
    folder = begin().folder
    (folder / MLFLOW).write_text(json.dumps({"run_id": "f" * 32, "follower": 7}))
    (folder / PUBLISHED).touch()
    assert begin().read(MLFLOW) == {"run_id": "f" * 32}
    assert not (folder / PUBLISHED).exists()


def test_what_a_power_cut_has_left_of_a_record_is_begun_again() -> None:
    folder = begin().folder
    for name in (RUN, MLFLOW):
        (folder / name).write_text("")
    begun = begin().read(RUN)
    assert (begun["name"], begun["status"]) == ("a", "RUNNING")


def test_what_finished_runs_go_on_from_is_removed_when_they_have_been_recorded() -> None:
    def run(name: str, status: str) -> RunFolder:
        begun = RunFolder.begin(RUNS / name, "trial", name)
        (begun.folder / "checkpoint.safetensors").touch()
        (begun.folder / "evaluated").mkdir()
        begun.end(status)
        return begun

    recorded, waiting, interrupted, uploads = (
        run(name, status)
        for name, status in (("a", "FINISHED"), ("b", "FINISHED"), ("c", "KILLED"), ("d", "FINISHED"))
    )
    for each in (recorded, interrupted):
        (each.folder / PUBLISHED).touch()
    later = run("e", "FINISHED")
    ended = later.read(RUN)["end_time"] + 1000
    (later.folder / RUN).write_text(json.dumps({**later.read(RUN), "end_time": ended}))
    with held(uploads.folder):
        discard_finished(before=ended)
    assert not recorded.folder.exists()
    assert waiting.read(RUN)["status"] == "FINISHED"
    assert waiting.goes_on_from == []
    for each in (interrupted, uploads, later):
        assert len(each.goes_on_from) == 2
    discard_finished()
    assert [len(each.goes_on_from) for each in (interrupted, uploads, later)] == [2, 0, 0]


def test_what_waits_leaves_the_copy_of_an_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC deletes the copy."""
    begin().keep()  # the project's own stays where it is
    assert (tmp_path / RUNS / "a" / RUN).exists()
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmpx1"
    for waits in (True, False):
        copy.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(copy)
        run = begin()
        if not waits:
            (run.folder / PUBLISHED).touch()
        run.keep()
        assert run.folder.exists() != waits
    assert {path.name for path in (tmp_path / RUNS).iterdir()} == {"a", "a-2"}
    assert (tmp_path / RUNS / "a-2" / RUN).exists()
