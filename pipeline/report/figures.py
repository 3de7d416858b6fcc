"""The page's figures as inline SVG: light, readable at any width, without scripts.

Widths are percentages and heights pixels, so that text keeps its size on a phone. Colours are classes
that the page's style sheet defines for light and dark. All text goes through ElementTree, which escapes it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

HEIGHT = 300  # pixels of a figure's plotting area
BAR_HEIGHT = 26  # pixels of an interval in the table


@dataclass(frozen=True)
class Scale:
    """Maps values to 0-100 % of an axis, and knows its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def around(cls, values: Sequence[float], ticks: int = 5, margin: float = 0.06) -> "Scale":
        """An axis that holds the values and a margin, with about so many round ticks."""
        low, high = min(values), max(values)
        extent = high - low or abs(high) or 1.0
        step = _round_step(extent / ticks)
        low, high = low - margin * extent, high + margin * extent
        first, last = math.ceil(low / step), math.floor(high / step)
        return cls(low, high, tuple(round(index * step, 10) for index in range(first, last + 1)))

    def percent(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 2)


def _round_step(step: float) -> float:
    """The next larger of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


@dataclass(frozen=True)
class Point:
    """One method in the scatter plot."""

    rank: int  # stands in the point
    style: str  # CSS class of its colour
    x: float
    y: float
    low: float  # ends of the whisker
    high: float
    tooltip: str
    hollow: bool  # within the noise


@dataclass(frozen=True)
class Line:
    """One method's curves: (step, value) of the mean over its seeds, and of each seed."""

    style: str
    mean: Sequence[tuple[float, float]]
    seeds: Sequence[Sequence[tuple[float, float]]]  # drawn, thin, where there are several
    tooltip: str


def interval_bar(scale: Scale, low: float, mean: float, high: float, style: str, tooltip: str) -> Markup:
    """One row of the forest plot: the interval, its middle and the zero line."""
    svg = _figure(tooltip, BAR_HEIGHT, "bar")
    middle = BAR_HEIGHT / 2
    for tick in scale.ticks:
        x = _share(scale.percent(tick))
        _add(svg, "line", "zero" if tick == 0 else "grid", x1=x, x2=x, y1=0, y2=BAR_HEIGHT)
    group = _add(svg, "g", style)
    start, width = scale.percent(low), scale.percent(high) - scale.percent(low)
    _add(group, "rect", "interval", x=_share(start), width=_share(width), y=middle - 4, height=8, rx=4)
    _add(group, "circle", "mean", cx=_share(scale.percent(mean)), cy=middle, r=5)
    return _markup(svg)


def interval_axis(scale: Scale) -> Markup:
    """The tick labels above the interval bars, in percentage points."""
    svg = _figure("", 16, "bar axis")
    for tick in scale.ticks:
        _text(svg, f"{100 * tick:+g}".replace("-", "−") if tick else "0", _share(scale.percent(tick)), 13)
    return _markup(svg)


def scatter(points: Sequence[Point], reference: float, label: str) -> Markup:
    """Accuracy (a share of 1) over training seconds, best first, with a line at the reference's accuracy."""
    xs = Scale.around([0.0, *(point.x for point in points)], margin=0.05)
    xs = Scale(0.0, xs.high, tuple(tick for tick in xs.ticks if tick >= 0))
    ys = Scale.around([value for point in points for value in (point.low, point.y, point.high)])
    svg = _figure(label, HEIGHT)
    _axes(svg, xs, ys, "{:g} s")
    level = _y(ys, reference)
    _add(svg, "line", "zero", x1="0%", x2="100%", y1=level, y2=level)
    for point in reversed(points):  # the best on top
        x, y = _share(xs.percent(point.x)), _y(ys, point.y)
        group = _add(svg, "g", f"{point.style} point" + (" hollow" if point.hollow else ""))
        _add(group, "title").text = point.tooltip
        _add(group, "line", "whisker", x1=x, x2=x, y1=_y(ys, point.low), y2=_y(ys, point.high))
        _add(group, "circle", "dot", cx=x, cy=y, r=9.5)
        _text(group, str(point.rank), x, y + 4, style="rank")
    return _markup(svg)


def curves(lines: Sequence[Line], label: str) -> Markup:
    """Validation accuracy (a share of 1) over optimiser steps."""
    svg = _figure(label, HEIGHT)
    if not lines:
        return _markup(svg)
    xs = Scale.around([step for line in lines for step, _ in line.mean], margin=0.0)
    ys = Scale.around([value for line in lines for seed in line.seeds for _, value in seed])
    _axes(svg, xs, ys, "{:,g}")
    # Stretched to the figure's width; strokes keep theirs.
    canvas = _add(
        svg, "svg", viewBox=f"0 0 100 {HEIGHT}", preserveAspectRatio="none", width="100%", height=HEIGHT
    )
    for line in lines:
        group = _add(canvas, "g", f"{line.style} curve")
        _add(group, "title").text = line.tooltip
        for seed in line.seeds if len(line.seeds) > 1 else ():
            _polyline(group, xs, ys, seed, "seed")
        _polyline(group, xs, ys, line.mean, "mean")
    return _markup(svg)


def _polyline(
    parent: Element, xs: Scale, ys: Scale, values: Sequence[tuple[float, float]], style: str
) -> None:
    points = " ".join(f"{xs.percent(x):g},{_y(ys, y):g}" for x, y in values)
    _add(parent, "polyline", style, points=points, vector_effect="non-scaling-stroke")


def _axes(svg: Element, xs: Scale, ys: Scale, x_format: str) -> None:
    for tick in ys.ticks:
        y = _y(ys, tick)
        _add(svg, "line", "grid", x1="0%", x2="100%", y1=y, y2=y)
        _text(svg, f"{100 * tick:g}%", "0%", y + 4, anchor="end", dx=-8)
    for tick in xs.ticks:
        _text(svg, x_format.format(tick), _share(xs.percent(tick)), HEIGHT + 18)
    _add(svg, "line", "axis", x1="0%", x2="100%", y1=HEIGHT, y2=HEIGHT)


def _figure(label: str, height: int, style: str = "plot") -> Element:
    svg = Element("svg", {"class": style, "width": "100%", "height": str(height)})
    if label:
        svg.attrib.update({"role": "img", "aria-label": label})
        SubElement(svg, "title").text = label
    else:
        svg.attrib["aria-hidden"] = "true"
    return svg


def _add(parent: Element, tag: str, style: str = "", **attributes: str | float) -> Element:
    named = {name.replace("_", "-"): str(value) for name, value in attributes.items()}
    return SubElement(parent, tag, {"class": style, **named} if style else named)


def _text(
    parent: Element,
    text: str,
    x: str,
    y: float,
    *,
    anchor: str = "middle",
    dx: float = 0,
    style: str = "tick",
) -> None:
    _add(parent, "text", style, x=x, y=round(y, 1), dx=dx, text_anchor=anchor).text = text


def _y(scale: Scale, value: float) -> float:
    """Pixels from the top."""
    return round(HEIGHT * (1 - scale.percent(value) / 100), 1)


def _share(percent: float) -> str:
    return f"{percent:g}%"


def _markup(svg: Element) -> Markup:
    return Markup(tostring(svg, encoding="unicode"))
