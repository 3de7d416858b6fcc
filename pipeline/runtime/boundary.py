"""Where a stage meets its user: mistakes, and faults of the machine, are one sentence, never a traceback."""

import errno
import re
import sys
from collections.abc import Callable
from io import TextIOWrapper

from pipeline.runtime.proxies import go_past_proxies
from stochca.errors import UserError

_CONTINUES = "then run the same command again: it continues from what is there"
_ADVICE = {
    errno.ENOSPC: f"no space is left on the disk; free some, {_CONTINUES}",
    errno.EDQUOT: f"your quota of disk space is used up; free some, {_CONTINUES}",
    errno.EROFS: "this file system can only be read; work in a folder that can be written",
    errno.EACCES: "permission denied; make the file or folder yours, or work in another folder",
    errno.EPERM: "not permitted; make the file or folder yours, or work in another folder",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.ENOMEM: "memory ran out; lower training.batch_size, or raise training.accumulate, or set "
    "training.gradient_checkpointing",
}


def run(main: Callable[[], None]) -> None:
    """Call `main`; a UserError is printed as ``error: ...`` on stderr and ends the process with code 2.

    So is what the machine lacks, such as space on its disk, with code 1. Ctrl-C ends it with code 130, as
    shells expect of an interrupted command.
    """
    go_past_proxies()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal may lack letters that names have
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
    except UserError as error:
        # Of a process that loads images, PyTorch passes a whole traceback on, which ends with the sentence.
        sentence = str(error).rsplit("UserError: ", 1)[-1].strip()
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if (lack := sentence_of(error)) is None:
            raise
        print(f"error: {lack}", file=sys.stderr)
        sys.exit(1)


def sentence_of(error: BaseException) -> str | None:
    """What the machine lacks - space, memory, a permission - and what to do; None: it is something else."""
    advice = _ADVICE.get(_number_of(error) or 0)
    file = getattr(error, "filename", None)
    return advice and (f"{file}: {advice}" if file else advice)


def first_line(error: BaseException) -> str:
    """Of what the error says, without a full stop; the name of its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def _number_of(error: BaseException) -> int | None:
    """The operating system's number of the error; libraries in Rust and C++ only tell it in their words."""
    text = str(error)
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text:
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno:
        return error.errno
    told = re.search(r"\b(?:os error|errno) (\d+)", text, re.IGNORECASE)
    return int(told[1]) if told else None
