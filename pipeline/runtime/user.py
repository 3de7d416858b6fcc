"""Who runs this."""

import os
from getpass import getuser


def user_name() -> str:
    """The user's name; the number of one who has none, as in a container that runs as somebody's."""
    try:
        return getuser()
    except (KeyError, OSError):  # of Python before 3.13, and since
        return str(os.getuid())
