"""The figures a study file names: builders of charts from rows, laws and trajectories.

A builder (`curves`, `trajectories`, `optimum`) returns a `Figure`, called as `figure(data, trajectories) -> Chart` once
the rows are there; `svg` and `plotly_figure` draw a chart. A law that cannot be fitted becomes a note under the chart:
a study with one poor cell still gets its report.
Intervals are those of the claims: the stratified jackknife over runs, which is the t interval for the mean of one cell.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from scaling_jax.laws import intervals
from scaling_jax.laws.derived import parabola_minimum
from scaling_jax.laws.fitting import fit
from scaling_jax.laws.form import NotTestable
from scaling_jax.studies.charts import PALETTE, Chart, Level, Mark, Series, label, tick
from scaling_jax.studies.charts import between as between
from scaling_jax.studies.charts import number as number
from scaling_jax.studies.charts_plotly import plotly_figure as plotly_figure
from scaling_jax.studies.charts_svg import svg as svg

GRID_POINTS = 60  # of a fitted curve
MOST_THIN = 8  # single runs drawn behind a mean trajectory
MOST_STEPS = 240  # points of a trajectory; more are averaged in blocks


@dataclass(frozen=True)
class Figure:
    """A figure of a study, before its data are there: `draw(data, trajectories) -> Chart`.

    claims: what it is about, as texts of claims or their numbers, from 1 as in `--ablate`.
    """

    title: str
    draw: Callable
    claims: tuple = ()

    @property
    def key(self):
        """Name of its file: "loss-against-parameters"."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")[:60] or "figure"

    def __call__(self, data, trajectories=None):
        return self.draw(data, trajectories)


def claim_texts(figure, claims):
    """Texts of the claims a figure is about, out of the study's `claims`."""
    texts = [claim.text for claim in claims]
    for one in figure.claims:
        if one not in texts and not (isinstance(one, int) and 1 <= one <= len(texts)):
            raise ValueError(
                f"figure {figure.title!r}: claims = {figure.claims!r}: {one!r} is neither a claim's text nor a number from 1 to {len(texts)}"
            )
    return tuple(one if isinstance(one, str) else texts[one - 1] for one in figure.claims)


# --- builders ------------------------------------------------------------------------------------------------


def curves(
    title,
    x,
    y="loss",
    by=None,
    where=None,
    form=None,
    level=None,
    x_label="",
    y_label="",
    x_log=True,
    y_log=False,
    band="t",
    caption="",
    claims=(),
):
    """Mean of `y` against `x`, one series per value of `by` (a column or several), with 95% intervals and single rows as dots.

    Args:
      where: column -> value, or list of values, of the rows taken.
      form: a law fitted to each group and drawn with its band; needs `x` among its variables.
      level: name of the law's parameter drawn as a limit, as "E".
      band: "t" for 95% intervals, None for none.
    """
    if band not in ("t", None):
        raise ValueError(f"figure {title!r}: band = {band!r}, expected 't' or None")
    if level and form is None:
        raise ValueError(f"figure {title!r}: level = {level!r} is a parameter of a law; give `form` too")
    if level and level not in form.params:
        raise ValueError(f"figure {title!r}: level = {level!r}: {form.name} has the parameters {', '.join(form.params)}")
    if form and x not in form.inputs:
        raise ValueError(f"figure {title!r}: form = {form.name} is a law of {', '.join(form.inputs)}, not of x = {x!r}")
    face = dict(title=title, caption=caption, x_label=x_label or label(x), y_label=y_label or label(y), y_log=y_log)
    return Figure(title, partial(_curves, face, x, y, _columns(by), dict(where or {}), form, level, x_log, band), tuple(claims))


def optimum(title, x, y="loss", by=None, where=None, x_label="", y_label="", caption="", claims=(), reach=2):
    """Mean of `y` against a setting on a log axis, with the minimum of a parabola in log x and its 95% interval marked.

    reach: grid points either side of the lowest mean that the parabola is fitted to.
    """
    face = dict(title=title, caption=caption, x_label=x_label or label(x), y_label=y_label or label(y))
    return Figure(title, partial(_optimum, face, x, y, _columns(by), dict(where or {}), reach), tuple(claims))


def trajectories(
    title, by=None, where=None, x="epoch", y="train/loss", x_label="", y_label="", x_log=False, y_log=False, caption="", claims=()
):
    """Metric `y` along training: the mean over the runs of each group, and the runs themselves, thin."""
    face = dict(title=title, caption=caption, x_label=x_label or label(x), y_label=y_label or label(y), x_log=x_log, y_log=y_log)
    return Figure(title, partial(_trajectories, face, x, y, _columns(by), dict(where or {})), tuple(claims))


def _curves(face, x, y, by, where, form, level, x_log, band, data, _):
    rows = data.where(**where)
    place, ticks = _axis(rows, x)
    series, levels, notes = [], [], []
    for name, color, part in _groups(data, rows, by):
        means, few = _means(part, x, y, place, band)
        if few and band:
            notes.append(f"{name}: no interval at {', '.join(few)}" if name else f"no interval at {', '.join(few)}")
        series.append(Series(name or label(y), style="points" if form else "line", color=color, **means))
        if form is None:
            continue
        try:
            curve, limit = _law(part, x, y, form, level)
        except NotTestable as error:
            notes.append(f"{name + ': ' if name else ''}no fit drawn, {error}")
            continue
        series.append(Series(f"{name} fit".strip(), style="dash", color=color, **curve))
        if limit:
            levels.append(Level(limit[0], f"{level} {name}".strip(), limit[1], limit[2], color))
    if not len(rows):
        notes.append("no row to draw yet")
    # a log axis has no place for zero or names
    log = x_log and not ticks and all(v > 0 for one in series for v in one.x)
    return Chart(**face, series=tuple(series), levels=tuple(levels), x_log=log, notes=tuple(notes), ticks=ticks)


def _optimum(face, x, y, by, where, reach, data, _):
    rows, notes, series, marks = data.where(**where), [], [], []
    if len(rows) and (rows[x] <= 0).any():
        notes.append(f"{label(x)} of zero or less has no place on a log axis and is left out")
        rows = rows.where(**{x: sorted({v for v in rows[x] if v > 0})})
    groups = _groups(data, rows, by)
    for name, color, part in groups:
        means, few = _means(part, x, y, float, "t")
        series.append(Series(name or label(y), color=color, **means))
        if few:
            notes.append(f"{name + ': ' if name else ''}no interval at {', '.join(few)}")
        try:
            best, low, high, lowest = _parabola(part, x, y, reach)
        except NotTestable as error:
            notes.append(f"{name + ': ' if name else ''}no minimum marked, {error}")
            continue
        text = f"minimum, {name}:" if len(groups) > 1 else "minimum"
        marks.append(Mark(best, lowest, text, low, high, color))
    if not len(rows):
        notes.append("no row to draw yet")
    return Chart(**face, series=tuple(series), marks=tuple(marks), x_log=True, notes=tuple(notes))


def _trajectories(face, x, y, by, where, data, read):
    rows, series, notes = data.where(**where), [], []
    for name, color, part in _groups(data, rows, by):
        lines, lost, diverged = [], [], 0
        for run in dict.fromkeys(runs[0] for runs in part["runs"] if len(runs) == 1):
            try:
                frame = read(run)[[x, y]]
            except (OSError, KeyError, ValueError) as error:
                lost.append(f"{run}: {error}")
                continue
            diverged_here = bool(frame[y].iloc[-1:].isna().any())  # every metric has a value at the last step
            diverged += diverged_here
            frame = frame.dropna()
            if len(frame) and not diverged_here:
                lines.append((frame[x].to_numpy(float), frame[y].to_numpy(float)))
        if diverged:
            notes.append(f"{name + ': ' if name else ''}{diverged} of {diverged + len(lines)} runs diverged and are left out")
        if lost:
            notes.append(f"{name + ': ' if name else ''}{len(lost)} of {len(lost) + len(lines)} trajectories cannot be read: {lost[0]}")
        ends = max((a[0] for a, _ in lines), default=0), min((a[-1] for a, _ in lines), default=-1)
        if ends[0] > ends[1]:
            continue  # no run, or none that overlap
        shown = [_thin(*line) for line in lines[:MOST_THIN]] if len(lines) > 1 else []
        series += [Series(name or label(y), tuple(a), tuple(b), style="thin", color=color) for a, b in shown]
        at = max((a for a, _ in lines), key=len)
        at = np.unique([*at[(at >= ends[0]) & (at <= ends[1])], *ends])
        at, mean = _thin(at, np.mean([np.interp(at, *line) for line in lines], axis=0))
        title = f"{name or label(y)} ({len(lines)} run{'s' if len(lines) > 1 else ''})"
        series.append(Series(title, tuple(at), tuple(mean), color=color, counts=(len(lines),) * len(at)))
    if not series:
        notes.append("no trajectory to draw yet")
    return Chart(**face, series=tuple(series), notes=tuple(notes))


# --- what the builders share ---------------------------------------------------------------------------------


def _columns(by):
    return () if by is None else (by,) if isinstance(by, str) else tuple(by)


def _groups(data, rows, by):
    """(name, colour, rows) of every group of `rows`; a colour follows its group through all figures of a study."""
    if not by:
        return [("", 0, rows)] if len(rows) else []
    every, here = (list(dict.fromkeys(zip(*(view[c] for c in by), strict=True))) for view in (data, rows))
    try:
        every, here = sorted(every) if _numbers(every) else every, sorted(here) if _numbers(here) else here
    except TypeError:
        pass  # names mixed with numbers stay in order of appearance
    order = every if len(every) <= len(PALETTE) else here
    return [
        (", ".join(_say(c, v) for c, v in zip(by, key, strict=True)), order.index(key), rows.where(**dict(zip(by, key, strict=True))))
        for key in here
    ]


def _numbers(keys):
    return all(isinstance(v, (int, float, np.number)) for key in keys for v in key)


def _say(column, value):
    return f"{label(column)} {tick(value)}" if isinstance(value, (int, float, np.number)) else str(value)


def _axis(rows, x):
    """A function from a value of x to its place on the axis, and the labels of places that stand for names."""
    values = list(dict.fromkeys(rows[x])) if len(rows) else []
    if all(isinstance(v, (int, float, np.number)) for v in values):
        return float, ()
    return (lambda value: float(values.index(value))), tuple((float(i), str(v)) for i, v in enumerate(values))


def _means(part, x, y, place, band):
    """x, y, low, high, dots, counts of a series, and the x at which there is no interval."""
    out, dots, few = [], [], []
    for value in sorted(set(part[x]), key=place):
        here = part.where(**{x: value})
        mean, low, high = here.mean(y), math.nan, math.nan
        if band:
            try:
                found = intervals.jackknife(lambda dropped, here=here: here.drop(dropped).mean(y), here.strata)
                low, high = float(found.low), float(found.high)
            except NotTestable:
                pass
        if not math.isfinite(low):
            few.append(str(value) if isinstance(value, str) else tick(value))
        out.append((place(value), mean, low, high, len(here)))
        dots += [(place(value), float(v)) for v in here[y]] if len(here) > 1 else []
    columns = zip(*out, strict=True) if out else [()] * 5
    return {**dict(zip(("x", "y", "low", "high", "counts"), map(tuple, columns), strict=True)), "dots": tuple(dots)}, few


def _law(part, x, y, form, level):
    """The law fitted to a group: its curve with a band as fields of a series, and (value, low, high) of the parameter `level`."""
    ends = [float(v) for v in (min(part[x]), max(part[x]))]
    at = np.geomspace(*ends, GRID_POINTS) if ends[0] > 0 else np.linspace(*ends, GRID_POINTS)

    def fitted(dropped):
        view = part.drop(dropped)
        if not len(view):
            raise NotTestable("no row left to fit")
        # a law of x alone is fitted to the means over x, as studies do for fit.json: a cell with more teams weighs no more
        law = fit(form, view.by(x, y) if form.inputs == (x,) else view.frame, y=y)
        return np.append(_predict(law, part, x, at), law[level] if level else 0.0)

    whole = fitted(frozenset())
    low = high = np.full_like(whole, math.nan)
    try:
        found = intervals.jackknife(fitted, part.strata)
        low, high = found.low, found.high
    except NotTestable:
        pass  # the curve is drawn without a band
    limit = tuple(float(v[-1]) for v in (whole, low, high)) if level else None
    return dict(x=tuple(at), y=tuple(whole[:-1]), low=tuple(low[:-1]), high=tuple(high[:-1])), limit


def _predict(law, part, x, at):
    """The law at `at`, its other inputs as in the group's first row."""
    return law.predict({name: at if name == x else np.full_like(at, part[name][0]) for name in law.form.inputs})


def _parabola(part, x, y, reach):
    """(best x, low, high, y there) of the parabola in log x through the means next to the lowest."""
    minimum = lambda dropped: math.log(parabola_minimum(part.drop(dropped).by(x, y), reach))
    best, low, high = minimum(frozenset()), math.nan, math.nan
    try:
        found = intervals.jackknife(minimum, part.strata)
        low, high = float(found.low), float(found.high)
    except NotTestable:
        pass  # marked without an interval
    means = part.by(x, y)
    at = np.interp(best, np.log(means.index.to_numpy(float)), means.to_numpy())
    return math.exp(best), math.exp(low), math.exp(high), float(at)


def _thin(x, y):
    """At most `MOST_STEPS` points, by averaging blocks."""
    blocks = np.array_split(np.arange(len(x)), min(len(x), MOST_STEPS))
    return np.array([x[b].mean() for b in blocks if b.size]), np.array([y[b].mean() for b in blocks if b.size])
