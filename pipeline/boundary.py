"""Where a stage meets its user: mistakes are one sentence, never a traceback."""

import sys
from collections.abc import Callable

from stochca.errors import UserError


def run(main: Callable[[], None]) -> None:
    """Call `main`; a UserError is printed as ``error: ...`` on stderr and ends the process with code 2.

    Ctrl-C ends it with code 130, as shells expect of an interrupted command.
    """
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
