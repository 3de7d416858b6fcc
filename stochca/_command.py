"""The command `stochca`: it belongs to a clone of the project, of which the installed library is a part."""

import sys
from importlib import import_module
from pathlib import Path

PARTS = ("stochca/_command.py", "pipeline/cli.py")  # by which a clone is told from another's `pipeline`
OWN = ("stochca", "pipeline", "flows")
INSTALL = "`pip install -e '.[pipeline]'`"


def main() -> None:
    """Run the command line of the clone that it is called from, or else of the one that this file lies in."""
    for folder in (Path.cwd(), Path(__file__).parents[1]):
        if all((folder / part).is_file() for part in PARTS):
            sys.path.insert(0, str(folder))
            for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
                del sys.modules[name]  # this file may be another clone's
            try:
                import_module("pipeline.cli").main()
            except ModuleNotFoundError as error:
                if (error.name or "").partition(".")[0] in OWN:
                    raise
                _end(f"{error.name} is not installed, which the command needs; run {INSTALL} in {folder}")
            return
    _end(
        "the command stochca works on a clone of the project, and here is the library alone; get a clone, "
        f"run {INSTALL} in its folder, and call it there"
    )


def _end(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)
