"""Charts on paper: SVG by matplotlib, the same bytes for the same chart."""

import functools
import io
import math
import textwrap
from pathlib import Path

from scaling_jax.studies.charts import GRID, INK, MUTED, PALETTE, PAPER, bars, level_text, mark_text, there, tick, x_ticks


def svg(chart, path):
    """Draws the chart as SVG at `path`; the same chart gives the same bytes."""
    Path(path).write_bytes(drawn(chart))


@functools.lru_cache(maxsize=32)
def drawn(chart):
    """The chart's SVG as bytes; kept, since a report shows what lies in figures/."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    look = {
        "svg.hashsalt": "scaling_jax",  # ids of clip paths are random without it
        "svg.fonttype": "none",  # text stays text: small files, found by search
        "font.family": ["DejaVu Sans"],
        "font.size": 10,
        "text.color": INK,
        "text.parse_math": False,  # a name with dollars is a name
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
    }
    with mpl.rc_context(look):
        figure = Canvas(figsize=(6.8, 4.5), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        _draw(axes, chart)
        figure.get_layout_engine().set(w_pad=0.09, h_pad=0.09)
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        names = [one.name for one in chart.series if one.name in handles]  # matplotlib would put bars behind lines
        if len(names) > 1:
            columns = max(1, min(4, (len(names) + 1) // 2 if len(names) > 3 else len(names), 84 // (max(map(len, names)) + 6)))
            figure.legend([handles[name] for name in names], names, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def _draw(axes, chart):
    if chart.x_log:
        axes.set_xscale("log")
    if chart.y_log:
        axes.set_yscale("log")
    for i, one in enumerate(chart.series):
        _draw_series(axes, one, zorder=3 + 0.01 * i)
    for level in chart.levels:
        color = MUTED if level.color is None else PALETTE[level.color % len(PALETTE)]
        if there(level.low) and there(level.high):
            axes.axhspan(level.low, level.high, color=color, alpha=0.10, linewidth=0)
        axes.axhline(level.y, color=color, linestyle=(0, (1, 2)), linewidth=1.4)
        place = dict(xycoords=axes.get_yaxis_transform(), xytext=(-4, 3), textcoords="offset points", ha="right", va="bottom")
        axes.annotate(level_text(level), (1, level.y), color=color, fontsize=9, **place)
    for i, mark in enumerate(chart.marks):
        color = INK if mark.color is None else PALETTE[mark.color % len(PALETTE)]
        if there(mark.low) and there(mark.high):
            axes.errorbar(
                [mark.x],
                [mark.y],
                xerr=[[mark.x - mark.low], [mark.high - mark.x]],
                color=color,
                elinewidth=2,
                capsize=5,
                capthick=2,
                zorder=5,
            )
        axes.axvline(mark.x, color=color, linewidth=1, linestyle=(0, (1, 2)), zorder=2)
        axes.plot([mark.x], [mark.y], marker="D", color=color, markeredgecolor=PAPER, markersize=7, zorder=6)
        place = dict(xycoords=axes.get_xaxis_transform(), xytext=(0, 4 + 13 * i), textcoords="offset points", ha="center", va="bottom")
        axes.annotate(mark_text(mark), (mark.x, 0), color=color, fontsize=9, **place)
    axes.margins(x=0.04, y=0.08)
    if chart.marks and not chart.y_log:  # room at the bottom for their text
        low, high = axes.get_ylim()
        axes.set_ylim(low - 0.06 * len(chart.marks) * (high - low), high)
    _ticks(axes, chart)
    axes.set_title("\n".join(textwrap.wrap(chart.title, 72)), loc="left", fontsize=11.5, fontweight="bold")
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    if not chart.series:
        axes.text(
            0.5,
            0.5,
            "\n".join(textwrap.wrap("; ".join(chart.notes) or "nothing to draw", 60)),
            transform=axes.transAxes,
            ha="center",
            color=MUTED,
        )


def _draw_series(axes, one, zorder):
    color = PALETTE[one.color % len(PALETTE)]
    if one.style == "thin":
        axes.plot(one.x, one.y, color=color, linewidth=0.8, alpha=0.4, zorder=zorder - 1)
        return
    if one.dots:
        axes.scatter(*zip(*one.dots, strict=True), s=9, color=color, alpha=0.4, linewidths=0, zorder=zorder - 1)
    line = {"line": "-", "dash": (0, (5, 2)), "points": "none"}[one.style]
    marker = "o" if one.style != "dash" and len(one.x) <= 40 else None
    face = dict(color=color, linestyle=line, marker=marker, markersize=5.5, markeredgecolor=PAPER, linewidth=1.8, zorder=zorder)
    if one.low is not None and one.style == "points":
        axes.errorbar(one.x, one.y, yerr=bars(one), label=one.name, elinewidth=1.4, capsize=2.5, **face)
        return
    if one.low is not None:
        nan = [(math.nan, math.nan) if not (there(a) and there(b)) else (a, b) for a, b in zip(one.low, one.high, strict=True)]
        axes.fill_between(one.x, *zip(*nan, strict=True), color=color, alpha=0.16, linewidth=0, zorder=zorder - 2)
    axes.plot(one.x, one.y, label=one.name, **face)


def _ticks(axes, chart):
    from matplotlib import ticker

    ticks = x_ticks(chart)
    for axis, log in ((axes.xaxis, chart.x_log and not ticks), (axes.yaxis, chart.y_log)):
        if not log:
            continue
        low, high = axis.get_view_interval()
        if high / low < 300:  # few decades: also 2 and 5, or a log axis may show one number only
            axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if high / low > 5 else (1, 1.5, 2, 3, 4, 5, 6, 8)))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: tick(value)))
        axis.set_minor_formatter(ticker.NullFormatter())
    if ticks:
        axes.set_xticks([at for at, _ in ticks], [text for _, text in ticks])
        axes.xaxis.set_minor_locator(ticker.NullLocator())
