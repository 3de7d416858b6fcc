"""The one exception that stands for a user's mistake."""


class UserError(ValueError):
    """A mistake in what the user gave: one sentence that names it and says what to do.

    Command lines print the sentence and exit with code 2; they never show a traceback for it.
    """


def one_line(error: BaseException) -> str:
    """What another library's error says, on one line; the name of its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
