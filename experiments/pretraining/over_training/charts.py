"""The study's own figures: loss against compute, a line for every M, with the fitted law; error against loss."""

import math
from functools import partial

import numpy as np

from scaling_jax.laws import forms, intervals
from scaling_jax.laws.form import NotTestable
from scaling_jax.studies.charts import Chart, Series
from scaling_jax.studies.figures import Figure

from . import published, statistics

POINTS = 60  # of a curve
GIGA, EXA = 1e9, 1e18  # units of compute on the axes of our and of the published runs


def own(title, caption, claims):
    """Our runs by M, with intervals over seeds, and the law fitted to the cheap ones; what it was not fitted to is a series of its own."""

    def draw(data, _):
        face = dict(title=title, caption=caption, x_label="compute 6 N D (GFLOP)", y_label="test loss (nats per token)", x_log=True)
        try:
            part, law = statistics.own(data), statistics.own_law(data)
        except NotTestable as error:
            return Chart(**face, notes=(str(error),))
        lines = []
        for color, multiplier in enumerate(sorted(set(part["multiplier"].tolist()))):
            here = part.where(multiplier=multiplier)
            lines.append(_law(partial(forms.over_training.predict, law), multiplier, here["compute"], GIGA, color))
            for use in ("fit", "held out"):
                if len(cells := here.where(use=use)):
                    lines.append(_cells(cells, f"M = {multiplier}{', held out' * (use != 'fit')}", color))
        return Chart(**face, series=tuple(lines))

    return Figure(title, draw, claims)


def paper(title, train_set, caption, claims):
    """The published runs of one training set at M of 20 and more, and the law fitted to five of them."""

    def draw(data, _):
        face = dict(title=title, caption=caption, x_label="compute 6 N D (exaFLOP)", y_label="loss on C4 (nats per token)", x_log=True)
        try:
            part = statistics.paper(data, train_set=train_set, over_trained=1)
            law = published.loss_law(part.frame)
        except NotTestable as error:
            return Chart(**face, notes=(str(error),))
        lines = []
        for color, multiplier in enumerate(sorted(set(part["multiplier"].tolist()))):
            here = part.where(multiplier=multiplier)
            lines.append(_law(law.predict, multiplier, here["compute"], EXA, color))
            lines.append(_points(here["compute"] / EXA, here["loss"], f"M = {multiplier}", color))
        fitted = part.where(use="fit")
        lines.append(_points(fitted["compute"] / EXA, fitted["loss"], "fitted", 7))
        return Chart(**face, series=tuple(lines))

    return Figure(title, draw, claims)


def errors(title, caption, claims):
    """Average top-1 error against loss on C4, of every training set with its error law."""

    def draw(data, _):
        face = dict(title=title, caption=caption, x_label="loss on C4 (nats per token)", y_label="average top-1 error", x_log=False)
        try:
            part = statistics.paper(data)
            lines = []
            for color, one in enumerate(dict.fromkeys(part["train_set"].tolist())):
                here = part.where(train_set=one)
                law, at = published.error_law(here.frame, "error"), np.linspace(here["loss"].min(), here["loss"].max(), POINTS)
                lines.append(Series(f"{one} fit", tuple(at.tolist()), tuple(law.predict({"loss": at}).tolist()), style="dash", color=color))
                lines.append(_points(here["loss"], here["error"], one, color))
        except NotTestable as error:
            return Chart(**face, notes=(str(error),))
        return Chart(**face, series=tuple(lines))

    return Figure(title, draw, claims)


def _law(predict, multiplier, compute, unit, color):
    """A law at one M over the range of `compute`: N = sqrt(C / 6 M)."""
    at = np.geomspace(min(compute), max(compute) * (1.0 + 1e-9), POINTS)
    params = np.sqrt(at / (6 * multiplier))
    predicted = predict({"params": params, "tokens": multiplier * params})
    return Series(f"M = {multiplier} fit", tuple((at / unit).tolist()), tuple(predicted.tolist()), style="dash", color=color)


def _points(x, y, name, color):
    order = np.argsort(x)
    return Series(name, tuple(x[order].tolist()), tuple(y[order].tolist()), style="points", color=color)


def _cells(part, name, color):
    """Means over seeds with their intervals, and the seeds as dots."""
    columns, dots = [], []
    for compute in sorted(set(part["compute"].tolist())):
        here = part.where(compute=compute)
        mean, low, high = here.mean(), math.nan, math.nan
        try:
            found = intervals.jackknife(lambda dropped, here=here: here.drop(dropped).mean(), here.strata)
            low, high = float(found.low), float(found.high)
        except NotTestable:
            pass  # one seed
        columns.append((compute / GIGA, mean, low, high, len(here)))
        dots += [(compute / GIGA, float(loss)) for loss in here["loss"]]
    x, y, low, high, counts = zip(*columns, strict=True)
    return Series(name, x, y, low, high, tuple(dots), "points", color, counts)
