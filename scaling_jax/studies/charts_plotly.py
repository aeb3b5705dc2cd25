"""Charts in the browser: plotly's JSON, without plotly."""

import math

from scaling_jax.studies.charts import (
    DARK_GRID,
    DARK_INK,
    DARK_MUTED,
    DARK_PALETTE,
    DARK_PAPER,
    GRID,
    INK,
    MUTED,
    PALETTE,
    PAPER,
    bars,
    level_text,
    mark_text,
    measured,
    number,
    there,
    x_ticks,
)


def plotly_figure(chart):
    """The chart as plotly's {"data", "layout"}, plain JSON in the light theme; `recolor()` lists what a dark page exchanges."""
    data = [trace for one in chart.series for trace in _traces(one, chart)]
    shapes, notes = [], []
    for level in chart.levels:
        color = MUTED if level.color is None else PALETTE[level.color % len(PALETTE)]
        across = {"xref": "paper", "x0": 0, "x1": 1, "yref": "y"}
        if there(level.low) and there(level.high):
            fill = MUTED if level.color is None else color
            shapes.append(
                {
                    "type": "rect",
                    **across,
                    "y0": level.low,
                    "y1": level.high,
                    "fillcolor": _clear(fill, 0.10),
                    "line": {"width": 0},
                    "layer": "below",
                }
            )
        shapes.append({"type": "line", **across, "y0": level.y, "y1": level.y, "line": {"color": color, "width": 1.5, "dash": "dot"}})
        at = math.log10(level.y) if chart.y_log else level.y
        place = {"xref": "paper", "x": 1, "xanchor": "right", "y": at, "yanchor": "bottom", "showarrow": False}
        notes.append({**place, "text": _escape(level_text(level)), "font": {"color": color, "size": 12}})
    for i, mark in enumerate(chart.marks):
        color = INK if mark.color is None else PALETTE[mark.color % len(PALETTE)]
        trace = {"type": "scatter", "mode": "markers", "x": [mark.x], "y": [mark.y], "name": _escape(mark.text), "showlegend": False}
        trace |= {"marker": {"color": color, "size": 11, "symbol": "diamond", "line": {"color": PAPER, "width": 1}}}
        trace["hovertemplate"] = f"{_escape(mark_text(mark))}<extra></extra>"
        if there(mark.low) and there(mark.high):
            ends = {"array": [mark.high - mark.x], "arrayminus": [mark.x - mark.low]}
            trace["error_x"] = {"type": "data", "symmetric": False, **ends, "color": color, "thickness": 3, "width": 5}
        data.append(trace)
        line = {"type": "line", "xref": "x", "x0": mark.x, "x1": mark.x, "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
        shapes.append({**line, "line": {"color": color, "width": 1, "dash": "dot"}})
        at = math.log10(mark.x) if chart.x_log else mark.x
        place = {"x": at, "yref": "paper", "y": 0, "yanchor": "bottom", "yshift": 4 + 17 * i, "showarrow": False}
        notes.append({**place, "text": _escape(mark_text(mark)), "font": {"color": color, "size": 12}})
    layout = {
        "shapes": shapes,
        "annotations": notes,
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": MUTED, "font": {"color": INK}},
        "hovermode": "closest",
        "margin": {"l": 64, "r": 16, "t": 12, "b": 52},
        "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": MUTED, "activecolor": INK},
        "showlegend": sum(t.get("showlegend", True) for t in data) > 1,
        "xaxis": _plotly_axis(chart.x_label, chart.x_log, x_ticks(chart)),
        "yaxis": _plotly_axis(chart.y_label, chart.y_log),
    }
    if not chart.series:
        text = {"text": "<br>".join(map(_escape, chart.notes)) or "nothing to draw", "font": {"color": MUTED, "size": 13}}
        layout["annotations"] = [{"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False, **text}]
        layout["xaxis"]["visible"] = layout["yaxis"]["visible"] = False
    elif chart.marks or chart.levels:
        layout["yaxis"]["range"] = _range(chart)
    return {"data": data, "layout": layout}


def recolor():
    """[light colour, dark colour] of everything in a figure of `plotly_figure`."""
    pairs = [(INK, DARK_INK), (MUTED, DARK_MUTED), (GRID, DARK_GRID), (PAPER, DARK_PAPER), *zip(PALETTE, DARK_PALETTE, strict=True)]
    return [*map(list, pairs), *([_clear(light, a), _clear(dark, 1.6 * a)] for light, dark in pairs for a in (0.10, 0.16))]


def _range(chart):
    """Range of y with room for texts and levels, which plotly's own does not count."""
    every = [v for one in chart.series for v in (*one.y, *(one.low or ()), *(one.high or ()), *(y for _, y in one.dots))]
    every += [v for level in chart.levels for v in (level.y, level.low, level.high)]
    every = [math.log10(v) if chart.y_log else v for v in every if there(v) and (v > 0 or not chart.y_log)]
    room = max(every) - min(every)
    return [min(every) - (0.06 + 0.07 * len(chart.marks)) * room, max(every) + 0.06 * room]


def _traces(one, chart):
    color = PALETTE[one.color % len(PALETTE)]
    base = {"type": "scatter", "x": _plain(one.x), "y": _plain(one.y), "name": _escape(one.name), "legendgroup": _escape(one.name)}
    if one.style == "thin":
        return [{**base, "mode": "lines", "line": {"color": color, "width": 1}, "opacity": 0.35, "showlegend": False, "hoverinfo": "skip"}]
    out = []
    if one.low is not None and one.style != "points":
        for x, low, high in _stretches(one):
            ring = {"x": _plain([*x, *x[::-1]]), "y": _plain([*low, *high[::-1]]), "fill": "toself", "fillcolor": _clear(color, 0.16)}
            out.append({**base, **ring, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False})
    if one.dots:
        x, y = zip(*one.dots, strict=True)
        marker = {"color": color, "size": 5, "opacity": 0.4}
        hover = f"{_escape(one.name)}, one row<br>%{{x:.4~g}}: %{{y:.4~f}}<extra></extra>"
        out.append(
            {**base, "x": _plain(x), "y": _plain(y), "mode": "markers", "marker": marker, "showlegend": False, "hovertemplate": hover}
        )
    many = len(one.x) > 40
    mode = "markers" if one.style == "points" else "lines" if one.style == "dash" or many else "lines+markers"
    trace = {**base, "mode": mode, "text": [_escape(t) for t in _hover(one, chart)], "hovertemplate": "%{text}<extra></extra>"}
    trace |= {"line": {"color": color, "width": 2.2, "dash": "dash" if one.style == "dash" else "solid"}}
    trace |= {"marker": {"color": color, "size": 8, "line": {"color": PAPER, "width": 1}}}
    if one.low is not None and one.style == "points":
        down, up = bars(one)
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": _plain(up),
            "arrayminus": _plain(down),
            "color": color,
            "thickness": 1.6,
            "width": 4,
        }
    return [*out, trace]


def _stretches(one):
    """x, low, high of each unbroken part of a band."""
    part = []
    for point in [*zip(one.x, one.low, one.high, strict=True), (None, None, None)]:
        if there(point[1]) and there(point[2]):
            part.append(point)
        elif part:
            yield tuple(zip(*part, strict=True))
            part = []


def _hover(one, chart):
    names = dict(chart.ticks)
    for i, (x, y) in enumerate(zip(one.x, one.y, strict=True)):
        value = number(y) if one.low is None else measured(y, one.low[i], one.high[i])
        count = f", n = {one.counts[i]}" if one.counts else ""
        yield f"{one.name}, {names.get(x, number(x))}: {value}{count}"


def _plotly_axis(title, log, ticks=()):
    face = {"gridcolor": GRID, "linecolor": MUTED, "tickcolor": MUTED, "zeroline": False, "showline": True, "automargin": True}
    axis = {"title": {"text": _escape(title), "standoff": 10}, "type": "log" if log else "linear", **face}
    if ticks:
        return axis | {"tickvals": [at for at, _ in ticks], "ticktext": [_escape(text) for _, text in ticks]}
    return axis | ({"dtick": "D2"} if log else {}) | {"exponentformat": "SI"}


def _plain(values):
    return [float(v) if there(v) else None for v in values]


def _clear(color, alpha):
    r, g, b = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{alpha:g})"


def _escape(text):
    """Plotly reads tags such as <b> and <a href> in labels."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
