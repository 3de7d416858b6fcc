import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.runtime.kept import files_kept
from stochca.errors import UserError

PLACES = (Path("code"), Path("photos"), Path("alone.py"), Path("not there"))


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = ("code/room/a.py", "code/__pycache__/a.pyc", "alone.py")
    for name in (*code, "photos/red/1.png", "photos/.DS_Store"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    Path("photos/broken").symlink_to("nowhere")


def put(name: str, text: str) -> Callable[[], object]:
    return lambda: Path(name).write_text(text)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (put("code/room/a.py", "other"), "code/room/a.py was changed while it was under way"),
        (put("alone.py", "other"), "alone.py was"),
        (put("photos/red/2.png", "new"), "photos/red/2.png was"),
        (lambda: Path("photos/red/1.png").unlink(), "photos/red/1.png was"),
        (lambda: os.utime("photos/red/1.png", (1, 1)), "photos/red/1.png was"),
        (
            lambda: [Path(f"photos/{n}.png").write_text("") for n in (3, 4, 5)],
            "photos/3.png (and 2 more files) was",
        ),
    ],
)
def test_what_is_edited_while_a_stage_works_is_named(edit: Callable[[], object], said: str) -> None:
    with pytest.raises(UserError) as error, files_kept("it", *PLACES):
        edit()
    assert str(error.value).startswith(said)


def test_what_changes_no_result_may_come_and_go() -> None:
    with files_kept("it", *PLACES):
        code = Path("code/room/a.py")
        before = code.read_text()
        code.write_text("of another branch")
        code.write_text(before)
        os.utime(code, (1, 1))
        for name in ("code/__pycache__/b.pyc", "photos/.DS_Store", "beside.py"):
            Path(name).write_text("new")
