"""The study's own figures: what holds at how many runs, and the scores of your file."""

from scaling_jax.laws import intervals
from scaling_jax.laws.form import NotTestable
from scaling_jax.studies.charts import Chart, Series
from scaling_jax.studies.figures import Figure


def against_runs(title, statistic, y_label, claims, caption):
    """`statistic(data, n, aggregate)` against the number of runs n, a line per aggregate with its 95% jackknife interval."""

    def draw(data, _):
        face = dict(title=title, caption=caption, x_label="runs per task and agent", y_label=y_label)
        part = data.where(kind="agent")
        if not len(part):
            return Chart(**face, notes=("no experiment has run yet",))
        sizes, names = sorted({int(n) for n in part["n"]}), list(dict.fromkeys(part["aggregate"].tolist()))
        try:
            lines = tuple(_line(data, statistic, sizes, name, color) for color, name in enumerate(names))
        except NotTestable as error:
            return Chart(**face, notes=(str(error),))
        return Chart(**face, series=lines)

    return Figure(title, draw, claims)


def _line(data, statistic, sizes, aggregate, color):
    rows = data.where(kind=("agent", "pool"), aggregate=aggregate)
    found = [intervals.jackknife(lambda dropped, n=n: statistic(rows.drop(dropped), n, aggregate), rows.strata) for n in sizes]
    ends = [tuple(float(getattr(one, name)) for one in found) for name in ("value", "low", "high")]
    return Series(aggregate.replace("_", " "), tuple(map(float, sizes)), *ends, color=color)


def your_profiles(title, caption):
    """The performance profiles of the agents in your file, with their bootstrap bands."""

    def draw(data, _):
        rows = data.where(kind="your profile")
        face = dict(title=title, caption=caption, x_label="normalised score", y_label="share of runs above")
        if not len(rows):
            return Chart(**face, notes=("no file was given under the setting `scores`",))
        lines = []
        for color, agent in enumerate(dict.fromkeys(rows["agent"].tolist())):
            own = rows.where(agent=agent)
            lines.append(Series(agent, *(tuple(own[name].tolist()) for name in ("tau", "above", "low", "high")), color=color))
        return Chart(**face, series=tuple(lines))

    return Figure(title, draw)
