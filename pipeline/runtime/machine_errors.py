"""What the machine lacks - space, memory, a permission - in one sentence that says what to do."""

import errno
import re

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


def sentence_of(error: BaseException) -> str | None:
    """The sentence, with the file if the error knows it; None where the error is of another kind."""
    advice = _ADVICE.get(_number_of(error) or 0)
    file = getattr(error, "filename", None)
    return advice and (f"{file}: {advice}" if file else advice)


def _number_of(error: BaseException) -> int | None:
    """The operating system's number of the error; libraries in Rust and C++ only tell it in their words."""
    text = str(error)
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text:
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno:
        return error.errno
    told = re.search(r"\b(?:os error|errno) (\d+)", text, re.IGNORECASE)
    return int(told[1]) if told else None
