"""Where a stage meets its user: mistakes, and faults of the machine, are one sentence, never a traceback."""

import sys
from collections.abc import Callable

from pipeline.runtime.machine_errors import sentence_of
from stochca.errors import UserError


def run(main: Callable[[], None]) -> None:
    """Call `main`; a UserError is printed as ``error: ...`` on stderr and ends the process with code 2.

    So is what the machine lacks, such as space on its disk, with code 1. Ctrl-C ends it with code 130, as
    shells expect of an interrupted command.
    """
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
