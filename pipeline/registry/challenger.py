"""Which of the trained models may challenge the champion. Chosen on validation, never on test."""

from collections.abc import Sequence

from pipeline.config.params import Params
from pipeline.report.results import Run
from pipeline.report.statistics import Spread
from stochca.errors import UserError

TARGET = "all"  # models for use; those of held-out domains are for science
VALIDATION = "validation_accuracy"


def choose(params: Params, runs: Sequence[Run]) -> Run:
    """The best seed of `promotion.method`; `best` is the method with the best mean over seeds.

    Of equals, the first in the order of params.yaml. Where protocol.refit left no validation images, it is
    the first seed: choosing one on the test images would spoil them.

    Raises:
        UserError: nothing was trained on all domains, or `best` has no validation images to choose on.
    """
    candidates = [run for run in runs if run.target == TARGET]
    if not candidates:
        raise UserError(
            f"no model can be promoted: protocol.targets in params.yaml lacks {TARGET!r}; add it and train"
        )
    by_method = {
        method: [run for run in candidates if run.method == method] for method in params.protocol.methods
    }
    method = params.promotion.method
    if not all(VALIDATION in run.metrics for run in candidates):
        if method == "best":
            raise UserError(
                "promotion.method best chooses on validation images, which protocol.refit trained on; name "
                f"one of {', '.join(by_method)} in params.yaml"
            )
        return by_method[method][0]
    if method == "best":
        method = max(by_method, key=lambda name: Spread.of([_merit(run) for run in by_method[name]]).mean)
    return max(by_method[method], key=_merit)


def _merit(run: Run) -> float:
    return run.metrics[VALIDATION]
