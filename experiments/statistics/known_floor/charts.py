"""Known floor, its own figures: how far models lie above the true floor, and the fitted laws."""

import numpy as np

from scaling_jax.laws import fitting
from scaling_jax.laws.form import NotTestable
from scaling_jax.studies.charts import Chart, Series, number
from scaling_jax.studies.figures import Figure

from . import statistics

FINE = 60


def _face(title, caption):
    return dict(title=title, caption=caption, x_label="tokens", y_label="loss above the true floor (%)", x_log=True, y_log=True)


def _points(rows, name, color):
    means = rows.by("tokens", "excess")
    keep = means[means > 0]  # a logarithmic axis has no place for the others; the claims count them
    dots = tuple((float(x), float(y)) for x, y in zip(rows["tokens"], rows["excess"], strict=True) if y > 0)
    return Series(name, tuple(map(float, keep.index)), tuple(map(float, keep)), style="points", color=color, dots=dots)


def _line(name, tokens, loss, floor, color):
    excess = 100 * (loss / floor - 1)
    above = excess > 0
    return Series(name, tuple(tokens[above].tolist()), tuple(excess[above].tolist()), style="dash", color=color)


def data_law(title, caption, claims):
    """Excess of the largest size of every source against tokens, and the law fitted to it."""

    def draw(data, _):
        series, notes = [], []
        for color, source in enumerate(np.unique(data.where(**statistics.DATA)["source"]).tolist()):
            try:
                floor, at = statistics.true(data, source), statistics.points(data, source)
                series.append(_points(data.where(**statistics.DATA, source=source), source, color))
                law = statistics.fitted(*at)
            except NotTestable as error:
                notes.append(str(error))
                continue
            fine = np.geomspace(at[0][0], at[0][-1], FINE)
            series.append(_line(f"{source}, law", fine, law.predict(tokens=fine), floor, color))
        return Chart(**_face(title, caption), series=tuple(series), notes=tuple(notes))

    return Figure(title, draw, claims)


def joint_law(title, caption, claims):
    """Excess of every size on the first-order chain against tokens, and the joint law."""

    def draw(data, _):
        try:
            floor = statistics.true(data, "order 1")
            law = fitting.fit(statistics.JOINT, statistics.joint_points(data), loss="log")
        except NotTestable as error:
            return Chart(**_face(title, caption), notes=(str(error),))
        rows, series = data.where(source="order 1"), []
        for color, params in enumerate(np.unique(rows["params"]).tolist()):
            own = rows.where(params=params)
            name = f"{number(params)} parameters"
            fine = np.geomspace(own["tokens"].min(), own["tokens"].max(), FINE)
            loss = law.predict({"params": np.full(FINE, float(params)), "tokens": fine})
            series += [_points(own, name, color), _line(f"{name}, law", fine, loss, floor, color)]
        return Chart(**_face(title, caption), series=tuple(series))

    return Figure(title, draw, claims)
