"""The page: one HTML file in the style of the pipeline's own, whose templates it uses."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from jinja2 import ChoiceLoader, PackageLoader

from examples.language.report.pictures import draw_steering
from examples.language.report.standings import Standing
from examples.language.settings import UNTUNED, Settings
from pipeline.report import sentences
from pipeline.report.documents import TEMPLATES
from pipeline.report.page import COLOURS, VERDICT_STYLES, Scale, method_styles
from pipeline.tracking.labels import flatten
from stochca.config.selection import SELECTIONS

SIDE_BY_SIDE = 20  # held-out answers
WINDOW = 8  # steps that a point of a training curve is the mean of; fewer in short runs


def build_page(
    rows: Sequence[Standing],
    settings: Settings,
    manifest: dict[str, Any],
    backbone: dict[str, Any],
    pretuned: bool,
) -> str:
    """The page as HTML; `manifest` is that of the conversations, `backbone` its card."""
    assert TEMPLATES.loader is not None
    own = ChoiceLoader([PackageLoader("examples.language.report"), TEMPLATES.loader])
    ends = [end for row in rows for end in (row.difference.low, row.difference.high)]
    steered = {row.method: row.outcomes[0]["steering"] for row in rows if "steering" in row.outcomes[0]}
    trained = [row for row in rows if row.method != UNTUNED]
    return (
        TEMPLATES.overlay(loader=own)
        .get_template("language.html")
        .render(
            words=sentences,
            headline=headline(rows),
            caveat=caveat(rows),
            rows=rows,
            trained=trained,
            untuned=UNTUNED,
            reference=rows[0].reference,
            confidence=rows[0].confidence,
            metric=SELECTIONS["log_loss"],
            scale=Scale.around([0.0, *ends]),
            styles=method_styles([row.method for row in rows], rows[0].reference),
            verdict_styles=VERDICT_STYLES,
            colours=COLOURS,
            written=sum(answer["written"] is not None for answer in rows[0].outcomes[0]["answers"]),
            curves=curves(trained),
            window=WINDOW,
            dialogues=side_by_side(rows),
            pictures={name: draw_steering(steering) for name, steering in list(steered.items())[:1]},
            pretuned=pretuned,
            manifest=manifest,
            backbone=backbone,
            settings=settings,
            training=flatten(settings.training.model_dump()),
            chosen={name: method.model_dump() for name, method in settings.methods.items()},
        )
    )


def headline(rows: Sequence[Standing]) -> str:
    """Who won, by how much and how sure that is."""
    best = rows[0]
    said = f"log loss {best.log_loss.mean:.3f} per answer token, perplexity {best.perplexity:.1f}"
    if best.is_reference:
        return f"No method is better than {best.method}: {said}"
    low, high = (sentences.gain(best.metric, end) for end in (best.difference.low, best.difference.high))
    below = f"{abs(best.difference.mean):.3f} below {best.reference}"
    sure = f"{below}, {100 * best.confidence:g}{sentences.SPACE}% interval {low} to {high}"
    if best.difference.shown:
        return f"{best.method} is best: {said} ({sure})"
    lead = f"{best.method} leads with {said} ({sure})"
    return f"No method is shown to be better than {best.reference}: {lead}"


def caveat(rows: Sequence[Standing]) -> str:
    """What the intervals cover."""
    seeds, answers = rows[0].log_loss.n, rows[0].outcomes[0]["answers"]
    groups = len({answer["group"] for answer in answers})
    together = ""
    if groups < len(answers):
        together = (
            f" The {len(answers):,} answers are of conversations with {groups:,} first questions, each of "
            "which counts as one observation."
        )
    kind = "other answers of the same kind"
    if seeds == 1:
        return f"With one seed, the intervals cover {kind}; another seed may differ.{together}"
    few = " Two seeds say little of a third, which makes them wide." if seeds == 2 else ""
    return f"With {seeds} seeds, the intervals cover other seeds as well as {kind}.{few}{together}"


def curves(rows: Sequence[Standing]) -> dict[str, Any]:
    """Training losses over steps, smoothed: thick the mean over seeds, thin each seed."""
    lines: list[dict[str, Any]] = []
    for row in rows:
        seeds = [_smoothed(outcome["losses"]) for outcome in row.outcomes]
        mean = pd.concat(seeds, axis=1).mean(axis=1)
        tooltip = f"{row.method}: {mean.iloc[0]:.2f} at first, {mean.iloc[-1]:.2f} at last"
        lines.append({"method": row.method, "mean": mean, "seeds": seeds, "tooltip": tooltip})
    return {
        "lines": lines,
        "steps": Scale.around(
            [float(step) for line in lines for step in line["mean"].index.tolist()], margin=0.02
        ),
        "losses": Scale.around(
            [value for line in lines for seed in line["seeds"] for value in seed.tolist()]
        ),
    }


def side_by_side(rows: Sequence[Standing]) -> list[dict[str, Any]]:
    """Held-out questions with their answers and what each method wrote, by its first seed."""
    written = {
        row.method: [a for a in row.outcomes[0]["answers"] if a["written"] is not None] for row in rows
    }
    asked = written[rows[0].method][:SIDE_BY_SIDE]
    return [
        {
            "question": answer["question"],
            "answer": answer["answer"],
            "written": {name: own[place] for name, own in written.items()},
        }
        for place, answer in enumerate(asked)
    ]


def _smoothed(losses: Sequence[float]) -> pd.Series:
    window = min(WINDOW, -(-len(losses) // 4))
    return pd.Series(losses, index=range(1, len(losses) + 1)).rolling(window).mean().dropna()
