"""The two pictures of a search."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.runtime.drawing import plt
from pipeline.search.records import Record
from pipeline.search.space import mean_prob, prob_of
from stochca.config.selection import Metric

BLUE, RED, GREY = "tab:blue", "tab:red", "0.45"


def reached_against_prob(
    records: Sequence[Record], best: Record, plain: Record | None, metric: Metric
) -> Figure:
    """Every trial with its spread over the seeds; stopped ones hollow; one per block at its mean."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    if plain is not None:
        mean, std = plain.reached.mean, plain.reached.std
        axes.axhline(mean, color=GREY, linewidth=1, linestyle="--", label="plain fine-tuning (prob 0)")
        if std is not None:
            axes.axhspan(mean - std, mean + std, color=GREY, alpha=0.12, linewidth=0)
    _points(axes, _shown(records), best, lambda record: mean_prob(record.values), spread=True)
    per_block = isinstance(prob_of(best.values), tuple)
    axes.set_xlabel("probability of cross-attention" + (", mean over blocks" if per_block else ""))
    if best.reached.std is not None:
        seeds = len(best.reached.values)
        axes.set_title(f"mean ± standard deviation over {seeds} seeds", fontsize=10)
    return _finished(figure, axes, metric)


def trials_over_time(records: Sequence[Record], best: Record, metric: Metric) -> Figure:
    """Each trial when it came to its end, and the best up to then."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    done = sorted(_shown(records), key=lambda record: record.finished_at or 0.0)
    unit, name = (60.0, "minutes") if (done[-1].finished_at or 0.0) > 180 else (1.0, "seconds")

    def time(record: Record) -> float:
        return (record.finished_at or 0.0) / unit

    steps: list[tuple[float, float]] = []
    for record in done:
        reached = record.reached.mean
        if record.is_complete and (not steps or metric.merit(reached) > metric.merit(steps[-1][1])):
            steps.append((time(record), reached))
    steps.append((time(done[-1]), best.reached.mean))
    axes.step(*zip(*steps, strict=True), where="post", color=RED, linewidth=1.2, label="best so far")
    _points(axes, done, best, time, spread=False)
    for record in done:
        axes.annotate(
            f"{mean_prob(record.values):.3g}",
            (time(record), record.reached.mean),
            xytext=(0, -14),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=RED if record is best else GREY,
        )
    axes.set(xlabel=f"{name} of searching", xlim=(0, None))
    axes.margins(y=0.12)
    axes.set_title("trials as they came to their end, with their probability", fontsize=10)
    return _finished(figure, axes, metric)


def _shown(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.rungs and not record.problem]


def _points(
    axes: Axes, records: Sequence[Record], best: Record, place: Callable[[Record], float], *, spread: bool
) -> None:
    """A point per trial: where `place` says, at what it reached."""
    others = [record for record in records if record is not best]
    for group, colour, face, label in (
        ([record for record in others if not record.stopped_early], BLUE, BLUE, "ran to the end"),
        ([record for record in others if record.stopped_early], BLUE, "white", "stopped early"),
        ([best], RED, RED, f"best: {mean_prob(best.values):.3g}"),
    ):
        if group:
            axes.errorbar(
                [place(record) for record in group],
                [record.reached.mean for record in group],
                yerr=[record.reached.std or 0.0 for record in group] if spread else None,
                fmt="o",
                color=colour,
                markerfacecolor=face,
                markersize=7,
                elinewidth=1,
                capsize=3,
                label=label,
            )


def _finished(figure: Figure, axes: Axes, metric: Metric) -> Figure:
    axes.set_ylabel(f"validation {metric.title}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    plt.close(figure)
    return figure
