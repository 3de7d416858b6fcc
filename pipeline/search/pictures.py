"""The two pictures of a search."""

from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.search.records import Record
from pipeline.search.space import mean_prob, prob_of

BLUE, RED, GREY = "tab:blue", "tab:red", "0.45"


def accuracy_against_prob(records: Sequence[Record], best: Record, plain: Record | None) -> Figure:
    """Every trial with its spread over the seeds; stopped ones hollow; one per block at its mean."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    shown = [record for record in records if record.rungs and not record.problem]
    if plain is not None:
        mean, std = plain.reached.mean, plain.reached.std
        axes.axhline(mean, color=GREY, linewidth=1, linestyle="--", label="plain fine-tuning (prob 0)")
        if std is not None:
            axes.axhspan(mean - std, mean + std, color=GREY, alpha=0.12, linewidth=0)
    for stopped, label in ((False, "ran to the end"), (True, "stopped early")):
        group = [record for record in shown if record.stopped_early == stopped and record is not best]
        _points(axes, group, BLUE, hollow=stopped, label=label)
    _points(axes, [best], RED, label=f"best: {mean_prob(best.values):.3g}", size=9)
    per_block = isinstance(prob_of(best.values), tuple)
    axes.set(
        xlabel="probability of cross-attention" + (", mean over blocks" if per_block else ""),
        ylabel="validation accuracy",
    )
    if best.reached.std is not None:
        seeds = len(best.reached.accuracies)
        axes.set_title(f"mean ± standard deviation over {seeds} seeds", fontsize=10)
    return _finished(figure, axes)


def trials_over_time(records: Sequence[Record], best: Record) -> Figure:
    """Each trial when it came to its end, and the best up to then."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    shown = [record for record in records if record.rungs and not record.problem]
    done = sorted(shown, key=lambda record: record.finished_at or 0.0)
    unit, name = (60.0, "minutes") if (done[-1].finished_at or 0.0) > 180 else (1.0, "seconds")
    times = [(record.finished_at or 0.0) / unit for record in done]

    accuracy, steps = 0.0, []
    for time, record in zip(times, done, strict=True):
        if record.is_complete and record.reached.mean > accuracy:
            accuracy = record.reached.mean
            steps.append((time, accuracy))
    steps.append((times[-1], accuracy))
    axes.step(*zip(*steps, strict=True), where="post", color=RED, linewidth=1.2, label="best so far")
    for stopped, label in ((False, "ran to the end"), (True, "stopped early")):
        points = [
            (time, record.reached.mean)
            for time, record in zip(times, done, strict=True)
            if record.stopped_early == stopped
        ]
        face = "white" if stopped else BLUE
        axes.plot(
            [time for time, _ in points], [mean for _, mean in points],
            "o", color=BLUE, markerfacecolor=face, markersize=7, label=label,
        )  # fmt: skip
    for time, record in zip(times, done, strict=True):
        axes.annotate(
            f"{mean_prob(record.values):.3g}",
            (time, record.reached.mean),
            xytext=(0, -14),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=RED if record is best else GREY,
        )
    axes.set(xlabel=f"{name} of searching", ylabel="validation accuracy", xlim=(0, None))
    axes.margins(y=0.12)
    axes.set_title("trials as they came to their end, with their probability", fontsize=10)
    return _finished(figure, axes)


def _points(
    axes: Axes, group: Sequence[Record], colour: str, *, label: str, hollow: bool = False, size: float = 7
) -> None:
    if not group:
        return
    axes.errorbar(
        [mean_prob(record.values) for record in group],
        [record.reached.mean for record in group],
        yerr=[record.reached.std or 0.0 for record in group],
        fmt="o",
        color=colour,
        markerfacecolor="white" if hollow else colour,
        markersize=size,
        elinewidth=1,
        capsize=3,
        alpha=0.75 if hollow else 1,
        label=label,
    )


def _finished(figure: Figure, axes: Axes) -> Figure:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    plt.close(figure)
    return figure
