"""Numbers and results in words."""

from collections.abc import Sequence

from pipeline.report.comparison import Standing
from pipeline.report.terms import Terms
from stochca.config.selection import Metric

SPACE = "\u00a0"  # does not break, so that a number stays with its unit
MINUS = "\u2212"


def percent(share: float, decimals: int = 1) -> str:
    """0.7412 as ``74.1 %``."""
    return f"{100 * share:.{decimals}f}{SPACE}%"


def points(share: float) -> str:
    """A difference of shares in percentage points, signed: 0.023 as ``+2.3``."""
    text = f"{100 * share:+.1f}".replace("-", MINUS)
    return "0.0" if text[1:] == "0.0" else text


def reading(metric: Metric, value: float) -> str:
    """A value of a metric: ``74.1 %``, or ``0.412`` where it is no share."""
    return percent(value) if metric.in_percent else f"{value:.3f}"


def bare(metric: Metric, value: float) -> str:
    """Likewise, where the unit stands elsewhere: ``74.1``."""
    return f"{100 * value:.1f}" if metric.in_percent else f"{value:.3f}"


def gain(metric: Metric, better: float) -> str:
    """By how much a method is better, signed: ``+2.3`` points of a share, ``+0.031`` of another metric."""
    if metric.in_percent:
        return points(better)
    text = f"{better:+.3f}".replace("-", MINUS)
    return "0.000" if text[1:] == "0.000" else text


def tick(metric: Metric, better: float) -> str:
    """Likewise on an axis: ``+5`` or ``0``."""
    value = 100 * better if metric.in_percent else better
    return f"{value:+g}".replace("-", MINUS) if value else "0"


def compared(metric: Metric, reference: str) -> str:
    """What a gain is, as a title: ``Points above or below finetune``."""
    if metric.higher_is_better:
        return f"Points above or below {reference}"
    return f"Less {metric.title} than {reference}"


def above(metric: Metric, better: float, reference: str) -> str:
    """``2.3 points above finetune``, ``0.031 below finetune``."""
    unit = "points " if metric.in_percent else ""
    return f"{bare(metric, better)} {unit}{'above' if metric.higher_is_better else 'below'} {reference}"


def interval(row: Standing) -> str:
    """``95 % interval −1.0 to +2.6``."""
    low, high = (gain(row.metric, end) for end in (row.difference.low, row.difference.high))
    return f"{row.confidence * 100:g}{SPACE}% interval {low} to {high}"


def outcome(row: Standing) -> str:
    """What came out of a method, and at what cost."""
    cost = duration(row.metrics["train_seconds"].mean)
    return f"{row.method}: {standing(row)} after {cost} of training; {row.verdict}"


def standing(row: Standing, images: str = "") -> str:
    """``74.1 % right``, ``74.1 % of 60 test images right``; of other metrics ``macro-F1 74.1 % on ...``."""
    value = reading(row.metric, row.value)
    if row.metric.name == "accuracy":
        return f"{value} of {images} right" if images else f"{value} right"
    return f"{row.metric.title} {value}{f' on {images}' if images else ''}"


def duration(seconds: float) -> str:
    """``8.2 s``, ``470 s``, ``12 min``, ``3.4 h``."""
    for limit, size, unit in ((9.95, 1, ".1f s"), (599.5, 1, ".0f s"), (5970, 60, ".0f min")):
        if seconds < limit:
            form, name = unit.split()
            return f"{seconds / size:{form}}{SPACE}{name}"
    return f"{seconds / 3600:.1f}{SPACE}h"


def memory(megabytes: float) -> str:
    """``870 MB`` or ``12.3 GB``."""
    if megabytes < 1000:
        return f"{megabytes:.0f}{SPACE}MB"
    return f"{megabytes / 1000:.1f}{SPACE}GB"


def count(number: float) -> str:
    """``3,465`` or ``21.5 M``."""
    return f"{number:,.0f}" if number < 1e6 else f"{number / 1e6:.1f}{SPACE}M"


def listing(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def headline(ranked: Sequence[Standing], terms: Terms) -> str:
    """Who won, by how much and how sure that is: a sentence on one target or on the average over several."""
    best = ranked[0]
    if len(best.targets) > 1:
        right = f"{standing(best)} on average over {len(best.targets)} {terms.targets}"
    else:
        right = standing(best, f"{best.test_images:,} test images")
    if len(ranked) == 1:
        return f"{best.method} is the only method: {right}"
    if best.is_reference:
        return (
            f"No method is better than {best.method}: {right}; {ranked[1].method} comes next with "
            + reading(best.metric, ranked[1].value)
        )
    chance = f"; among {len(ranked) - 1} comparisons that may be chance"
    sure = interval(best) + (chance if best.difference.low > 0 and not best.difference.shown else "")
    lead = f"{above(best.metric, best.difference.mean, best.reference)} ({sure})"
    if best.difference.verdict == "better":
        return f"{best.method} is best: {right}, {lead}"
    better = [row.method for row in ranked if row.difference.verdict == "better"]
    if better:
        return (
            f"{best.method} leads, but is not shown to be better than {best.reference}: {right}, {lead}; "
            f"shown to be better: {listing(better)}"
        )
    return f"No method is shown to be better than {best.reference}: {best.method} leads with {right}, {lead}"


def details(ranked: Sequence[Standing], terms: Terms) -> list[str]:
    """What the headline leaves out: rivals that can't be told from the best, what the verdicts cover.

    On one target also the best's cost, on average what the trials say.
    """
    best, average = ranked[0], len(ranked[0].targets) > 1
    sentences = []
    if average and not best.is_reference and best.trials > 1:
        ahead = sum(better > 0 for better in best.gains)
        error = bare(best.metric, best.gain.standard_error or 0)
        unit = " points" if best.metric.in_percent else f" less {best.metric.title}"
        sentences.append(
            f"Over {terms.repeats(best.trials)} the difference of {best.method} to {best.reference} was "
            f"{gain(best.metric, best.gain.mean)} ± {error}{unit} (mean ± standard error), above zero in "
            f"{ahead} of {best.trials}."
        )
    equals = [row.method for row in ranked[1:] if not row.behind_best.shown]
    if equals:
        sentences.append(f"Not told apart from {best.method}: {listing(equals)}.")
    elif not average and len(ranked) > 1:
        sentences.append(f"Every other method is shown to be behind {best.method}.")
    if not average:
        seconds = best.metrics["train_seconds"].mean
        cost = f"{best.method} trained for {duration(seconds)}"
        reference = next(row for row in ranked if row.is_reference).metrics["train_seconds"].mean
        if not best.is_reference and reference > 0:
            cost += f", {seconds / reference:.1f} times as long as {best.reference} ({duration(reference)})"
        sentences.append(f"{cost}.")
    sentences.append(f"{best.caveat[0].upper()}{best.caveat[1:]}.")
    if len(ranked) > 2:
        sentences.append(
            f"Better and worse allow for {len(ranked) - 1} comparisons at once (Holm's correction)."
        )
    return sentences
