import gc
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runtime.startup import importing
from tests.imports import ROOT


def test_the_collector_rests_while_importing_and_works_again_afterwards() -> None:
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    gc.unfreeze()


def test_it_works_again_after_a_failed_import_too() -> None:
    with pytest.raises(ImportError), importing():
        import pipeline.no_such_module  # type: ignore[import-not-found]  # noqa: F401
    assert gc.isenabled()
    gc.unfreeze()


def test_a_process_that_leaves_has_done_what_was_put_off(tmp_path: Path) -> None:
    """All that Python itself would have done: what is called at the end, and what waits to be written."""
    program = """
import atexit, sys, tempfile
from pathlib import Path
from pipeline.runtime.startup import leave
folder = tempfile.TemporaryDirectory(dir=sys.argv[1])
atexit.register(lambda: print("called at the end"))
print("printed")
leave()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "printed\ncalled at the end\n"
    assert list(tmp_path.iterdir()) == []
