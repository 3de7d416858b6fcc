"""params.yaml may be edited while a stage is at work; DVC would note the new settings for the old result."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.config.params import Params, load_params
from stochca.errors import UserError


@contextmanager
def settings_kept(params: Params, view: Callable[[Params], Any], what: str) -> Iterator[None]:
    """See afterwards that what the block has worked with, `view` of `params`, still stands in params.yaml.

    Raises:
        UserError: it does not. A stage that ends so is not recorded by DVC, and runs again the next time.
    """
    before = view(params)
    yield
    try:
        after = view(load_params())
    except UserError:
        after = None  # what stands there now can't be read
    if after != before:
        raise UserError(
            f"params.yaml was changed while {what} was under way, which went on with the settings that it "
            "had started with; its result is there, but not recorded by DVC: run dvc repro again for the new "
            "ones"
        )
