"""Trajectory law, its own figures: what was predicted beside what came, and the critical batch."""

import numpy as np

from scaling_jax.laws.form import NotTestable
from scaling_jax.studies.charts import Chart, Series, number
from scaling_jax.studies.figures import Figure

from . import crossings, statistics

FINE = 60  # points of a drawn curve


def predicted(title, column, where, claims, caption):
    """Measured trajectories at the largest value of `column` (points, single runs as dots) and the law fitted below it (dashes)."""

    def draw(data, _):
        face = dict(title=title, caption=caption, x_label="steps", y_label="test loss (nats per token)", x_log=True)
        try:
            known, held = statistics.split(data, column, where)
            law = statistics.fitted(statistics.LAW, known)
        except NotTestable as error:
            return Chart(**face, notes=(str(error),))
        rows, series = data.where(**where, **{column: held[column][0]}), []
        other = "batch" if column == "params" else "params"
        for color, value in enumerate(np.unique(held[other])):
            mine = crossings.select(held, held[other] == value)
            own = rows.where(**{other: value})
            name = f"batch of {number(value)} tokens" if other == "batch" else f"{number(value)} parameters"
            dots = tuple(zip(own["steps"].astype(float).tolist(), own["loss"].astype(float).tolist(), strict=True))
            series.append(Series(name, tuple(mine["steps"].tolist()), tuple(mine["loss"].tolist()), style="points", color=color, dots=dots))
            steps = np.geomspace(mine["steps"].min(), mine["steps"].max(), FINE)
            place = {"steps": steps, "params": np.full(FINE, mine["params"][0]), "batch": np.full(FINE, mine["batch"][0])}
            series.append(
                Series(f"{name}, predicted", tuple(steps.tolist()), tuple(law.predict(place).tolist()), style="dash", color=color)
            )
        return Chart(**face, series=tuple(series))

    return Figure(title, draw, claims)


def critical_batch(title, claims, caption):
    """The critical batch at every loss level of every fitted size (points), and the law through them (dashes)."""

    def draw(data, _):
        face = dict(title=title, caption=caption, x_label="test loss (nats per token)", y_label="critical batch (tokens)")
        try:
            points = crossings.averaged(data.where(**statistics.FITTED))
            params, loss, batches, steps = crossings.crossings(points)
            _, critical = crossings.hyperbola(batches, steps)
            law = crossings.critical_law(points)
        except NotTestable as error:
            return Chart(**face, notes=(str(error),))
        series = []
        for color, size in enumerate(np.unique(params)):
            mine = np.flatnonzero(params == size)
            x, y = loss[mine].tolist(), critical[mine].tolist()
            series.append(Series(f"{number(size)} parameters", tuple(x), tuple(y), style="points", color=color))
        at = np.linspace(loss.min(), loss.max(), FINE)
        series.append(Series("law", tuple(at.tolist()), tuple(law.predict({"loss": at}).tolist()), style="dash", color=len(series)))
        decades = critical.max() > 10 * critical.min()  # below one a logarithmic axis has a single label
        return Chart(**face, series=tuple(series), y_log=bool(decades))

    return Figure(title, draw, claims)
