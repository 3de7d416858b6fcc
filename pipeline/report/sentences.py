"""Numbers and results in words."""

from collections.abc import Sequence

from pipeline.report.comparison import Standing
from pipeline.report.terms import Terms

SPACE = "\u00a0"  # does not break, so that a number stays with its unit
MINUS = "\u2212"


def percent(share: float, decimals: int = 1) -> str:
    """0.7412 as ``74.1 %``."""
    return f"{100 * share:.{decimals}f}{SPACE}%"


def points(share: float) -> str:
    """A difference of shares in percentage points, signed: 0.023 as ``+2.3``."""
    text = f"{100 * share:+.1f}".replace("-", MINUS)
    return "0.0" if text[1:] == "0.0" else text


def interval(row: Standing) -> str:
    """``95 % interval −1.0 to +2.6``."""
    low, high = points(row.difference.low), points(row.difference.high)
    return f"{row.confidence * 100:g}{SPACE}% interval {low} to {high}"


def outcome(row: Standing) -> str:
    """What came out of a method, and at what cost."""
    cost = duration(row.metrics["train_seconds"].mean)
    return f"{row.method}: {percent(row.accuracy)} right after {cost} of training; {row.verdict}"


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
        right = f"{percent(best.accuracy)} right on average over {len(best.targets)} {terms.targets}"
    else:
        right = f"{percent(best.accuracy)} of {best.test_images:,} test images right"
    if len(ranked) == 1:
        return f"{best.method} is the only method: {right}"
    if best.is_reference:
        return (
            f"No method is better than {best.method}: {right}; {ranked[1].method} comes next with "
            + percent(ranked[1].accuracy)
        )
    chance = f"; among {len(ranked) - 1} comparisons that may be chance"
    sure = interval(best) + (chance if best.difference.low > 0 and not best.difference.shown else "")
    above = f"{100 * best.difference.mean:.1f} points above {best.reference} ({sure})"
    if best.difference.verdict == "better":
        return f"{best.method} is best: {right}, {above}"
    better = [row.method for row in ranked if row.difference.verdict == "better"]
    if better:
        return (
            f"{best.method} leads, but is not shown to be better than {best.reference}: {right}, {above}; "
            f"shown to be better: {listing(better)}"
        )
    return f"No method is shown to be better than {best.reference}: {best.method} leads with {right}, {above}"


def details(ranked: Sequence[Standing], terms: Terms) -> list[str]:
    """What the headline leaves out: rivals that can't be told from the best, what the verdicts cover.

    On one target also the best's cost, on average what the trials say.
    """
    best, average = ranked[0], len(ranked[0].targets) > 1
    sentences = []
    if average and not best.is_reference and best.trials > 1:
        ahead = sum(gain > 0 for gain in best.gains)
        error = f"{100 * (best.gain.standard_error or 0):.1f}"
        sentences.append(
            f"Over {terms.repeats(best.trials)} the difference of {best.method} to {best.reference} was "
            f"{points(best.gain.mean)} ± {error} points (mean ± standard error), above zero in {ahead} of "
            f"{best.trials}."
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
