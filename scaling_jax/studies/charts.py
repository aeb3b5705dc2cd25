"""Charts as plain data, and the colours and words that both of their renderers share."""

import math
from dataclasses import dataclass

# Okabe and Ito's colours, told apart with any colour vision; the dark ones are lifted to keep 3:1 on a dark ground.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b6578f", "#a67c00", "#3fa0d8", "#6b5bd2", "#5b6670")
DARK_PALETTE = ("#58aee8", "#ff8a4a", "#2fc79a", "#e68fc0", "#e0b43c", "#9ad4f5", "#a79bff", "#a9b4be")
INK, MUTED, GRID, PAPER = "#1c2530", "#5b6670", "#e3e7eb", "#ffffff"
DARK_INK, DARK_MUTED, DARK_GRID, DARK_PAPER = "#e8edf2", "#a9b4be", "#323c47", "#171d24"
STYLES = ("line", "dash", "points", "thin")


@dataclass(frozen=True)
class Series:
    """One named set of points in order of x.

    low, high: ends of the interval at each x (nan: none): a band for lines, bars for points. dots: single runs behind
    the means. counts: rows behind each mean. style: "line" | "dash" | "points" | "thin" (a single run; not in the legend).
    """

    name: str
    x: tuple
    y: tuple
    low: tuple | None = None
    high: tuple | None = None
    dots: tuple = ()
    style: str = "line"
    color: int = 0
    counts: tuple | None = None

    def __post_init__(self):
        if self.style not in STYLES:
            raise ValueError(f"series {self.name!r}: style = {self.style!r}, expected one of {', '.join(STYLES)}")
        for name in ("y", "low", "high", "counts"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.x):
                raise ValueError(f"series {self.name!r}: {name} has {len(values)} values for {len(self.x)} of x")


@dataclass(frozen=True)
class Level:
    """A horizontal line, such as the limit a law goes to, with its interval."""

    y: float
    text: str
    low: float | None = None
    high: float | None = None
    color: int | None = None


@dataclass(frozen=True)
class Mark:
    """A marked point; low, high are the interval of its x."""

    x: float
    y: float
    text: str
    low: float | None = None
    high: float | None = None
    color: int | None = None


@dataclass(frozen=True)
class Chart:
    """What a figure shows, whoever draws it. ticks: (position, label) of a categorical x axis; notes: what could not be drawn."""

    title: str
    caption: str = ""
    x_label: str = ""
    y_label: str = ""
    series: tuple = ()
    levels: tuple = ()
    marks: tuple = ()
    x_log: bool = False
    y_log: bool = False
    notes: tuple = ()
    ticks: tuple = ()


def label(column):
    """A column's name for an axis."""
    known = {
        "loss": "test loss (nats per token)",
        "test/loss": "test loss (nats per token)",
        "train/loss": "training loss (nats per token)",
    }
    known |= {"params": "parameters", "tokens": "unique tokens", "members": "ensemble members", "weight_decay": "weight decay"}
    return known.get(column, column.replace("_", " "))


def number(value, digits=4):
    """A number for people; a dash for what is not there."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.{digits}g}"


def between(low, high):
    """An interval for people: "[1.2, 3.4]", or "no interval"."""
    return f"[{number(low)}, {number(high)}]" if there(low) and there(high) else "no interval"


def measured(value, low, high):
    """A number with its interval, for people."""
    return f"{number(value)} {between(low, high)}" if there(low) and there(high) else f"{number(value)}, no interval"


def there(value):
    return value is not None and math.isfinite(value)


def tick(value):
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def x_ticks(chart):
    """(position, label) of the x axis: names, or on a log axis the few measured values if they do not crowd; () leaves it to the renderer."""
    if chart.ticks or not chart.x_log:
        return chart.ticks
    values = sorted({x for one in chart.series if one.style in ("points", "line") for x in one.x})
    steps = [b / a for a, b in zip(values, values[1:], strict=False)]
    if not 1 <= len(values) <= 9 or min(steps, default=1) < (values[-1] / values[0]) ** 0.07:
        return ()
    return tuple((x, tick(x)) for x in values)


def bars(series):
    """Distances from y down and up to the interval's ends; zero where there is none."""
    down = [y - low if there(low) else 0.0 for y, low in zip(series.y, series.low, strict=True)]
    up = [high - y if there(high) else 0.0 for y, high in zip(series.y, series.high, strict=True)]
    return down, up


def level_text(level):
    return f"{level.text} = {measured(level.y, level.low, level.high)}"


def mark_text(mark):
    return f"{mark.text} {measured(mark.x, mark.low, mark.high)}"
