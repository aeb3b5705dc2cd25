"""Trajectory law, what is measured: errors of predictions of what was held out, the critical batch, and what trades for what.

Errors are means of |prediction / measured - 1| over the points of the held-out trajectories, each a mean over seeds. Means, not
medians: an interval by leaving out runs wants a smooth statistic; the medians are reported as estimates.
"""

import dataclasses
import functools
import math

import numpy as np

from scaling_jax.laws import fitting, forms
from scaling_jax.laws.form import NotTestable
from scaling_jax.studies.claims import permute

from . import crossings
from .crossings import averaged, select
from .stages import KNOWN, TEXT

SIZES = {"setting": TEXT, "stage": ("sizes", "held_size")}
BATCHES = {"setting": TEXT, "stage": ("sizes", "held_batch")}
FITTED = {"setting": TEXT, "stage": "sizes"}
SOURCES = {"setting": KNOWN, "stage": "known"}

# A null test fits the law a thousand times: two starts around what runs of any scale give, instead of the 324 of the form. On
# the planted worlds of the tests, at the size of this study, both find the same minimum.
_STARTS = {
    "N_c": lambda x: np.median(x["params"]) * np.array([30.0, 1e5]),
    "alpha_N": (0.1,),
    "S_c": lambda x: np.median(x["steps"]) * np.array([0.1]),
    "alpha_S": (0.6,),
    "B_star": lambda x: np.median(x["batch"]) * np.array([10.0]),
    "alpha_B": (0.3,),
}
LAW = dataclasses.replace(forms.trajectory, starts=_STARTS)
WITH_FLOOR = dataclasses.replace(forms.trajectory_floor, starts={"E": (0.3, 1.5), **_STARTS})


def split(data, column, where):
    """(points fitted, points held out): those below the largest value of `column`, and those at it."""
    points = averaged(data.where(**where))
    held = points[column] == points[column].max()
    if held.all():
        raise NotTestable(f"one value of {column} only, nothing can be held out")
    return select(points, ~held), select(points, held)


def errors(predicted, held):
    """|prediction / measured - 1| at every point held out."""
    return np.abs(predicted / held["loss"] - 1)


def fitted(form, points, floor=None):
    """The law fitted to averaged points; kept, for claims and estimates ask for the same fits. floor: a given E."""
    names = (*form.inputs, form.y)
    return _fitted(form, names, tuple(np.asarray(points[name], np.float64).tobytes() for name in names), floor)


@functools.lru_cache(maxsize=512)
def _fitted(form, names, columns, floor):
    points = {name: np.frombuffer(column) for name, column in zip(names, columns, strict=True)}
    return fitting.fit(form, points, fixed=None if floor is None else {"E": floor})


def law_errors(known, held, form=LAW, floor=None):
    """Errors of the law fitted to what is known."""
    return errors(fitted(form, known, floor).predict(held), held)


# --- the size held out -----------------------------------------------------------------------------------------------------


def carried(known, held):
    """The curve of the largest size known, carried over to the one held out: the same batch, the same steps."""
    largest = select(known, known["params"] == known["params"].max())
    seen = dict(zip(zip(largest["batch"], largest["steps"], strict=True), largest["loss"], strict=True))
    try:
        return np.array([seen[place] for place in zip(held["batch"], held["steps"], strict=True)])
    except KeyError as error:
        raise NotTestable(f"the largest fitted size has no point at (batch, steps) = {error}") from error


def size_gain(data):
    """Error of the carried-over curve minus that of the law, in percent of the loss."""
    known, held = split(data, "params", SIZES)
    return 100 * float(errors(carried(known, held), held).mean() - law_errors(known, held).mean())


def size_error(data, of=np.median, form=LAW):
    """Error of the law on the size held out, in percent."""
    return 100 * float(of(law_errors(*split(data, "params", SIZES), form)))


def carried_error(data):
    """Median error of the carried-over curve, in percent."""
    known, held = split(data, "params", SIZES)
    return 100 * float(np.median(errors(carried(known, held), held)))


def stepwise_error(data):
    """Median error of the law estimated step by step, in percent."""
    known, held = split(data, "params", SIZES)
    return 100 * float(np.median(errors(forms.trajectory.predict(crossings.stepwise(known), held), held)))


def batchless_error(data):
    """Median error of a law in size and tokens that knows no batch, L = E + A / N^alpha + B / D^beta, in percent."""
    known, held = ({**points, "tokens": points["steps"] * points["batch"]} for points in split(data, "params", SIZES))
    return 100 * float(np.median(law_errors(known, held, forms.chinchilla)))


# --- the batch size held out -------------------------------------------------------------------------------------------------


def neighbour_errors(known, held):
    """Errors of the nearest known batch size's smooth curve, read at the same tokens and at the same steps: (tokens, steps)."""
    nearest = known["batch"].max()
    out = np.empty((2, len(held["loss"])))
    for size in np.unique(held["params"]):
        mine, theirs = (known["params"] == size) & (known["batch"] == nearest), held["params"] == size
        smooth = crossings.curve(select(known, mine))
        for i, factor in enumerate((held["batch"][0] / nearest, 1.0)):
            out[i, theirs] = crossings.at(smooth, held["steps"][theirs] * factor)
    return errors(out[0], held), errors(out[1], held)


def batch_gain(data):
    """Error of the better of two simple rules minus that of the law, on the batch size held out, in percent of the loss."""
    known, held = split(data, "batch", BATCHES)
    rules = min(one.mean() for one in neighbour_errors(known, held))
    return 100 * float(rules - law_errors(known, held).mean())


def batch_error(data):
    """Median error of the law on the batch size held out, in percent."""
    return 100 * float(np.median(law_errors(*split(data, "batch", BATCHES))))


def rule_error(data):
    """Median error of the better of the two simple rules, in percent."""
    return 100 * float(min(np.median(one) for one in neighbour_errors(*split(data, "batch", BATCHES))))


# --- the critical batch ------------------------------------------------------------------------------------------------------


def growth(data):
    """How the share that steps save in a larger batch grows as the loss of one size falls: d (d ln S / d ln B) / d ln L.

    S(B) = S_min (1 + B_crit / B) falls with the slope d ln S / d ln B = -B_crit / (B + B_crit): from 0 above the critical batch to -1
    below. A critical batch that does not move leaves it as it is at every loss. Sizes each around their own mean.
    """
    params, loss, batches, steps = crossings.crossings(averaged(data.where(**FITTED)))
    x = np.log(batches) - np.log(batches).mean()
    return _trend(params, np.log(loss), np.log(steps) @ x / (x @ x))


def critical_growth(data):
    """-d ln B_crit / d ln L along the training of one size, from a hyperbola at every loss: the law calls it 1 / alpha_B.

    No claim, for chance has no say in it: where batches are exchanged there is no critical batch, and the best one jumps from end to end
    of what is looked at, which is as steep a trend as any.
    """
    params, loss, batches, steps = crossings.crossings(averaged(data.where(**FITTED)))
    return -_trend(params, np.log(loss), np.log(crossings.hyperbola(batches, steps)[1]))


def _trend(params, x, y):
    """The slope of y over x, sizes each around their own mean."""
    x, y = x.copy(), y.copy()
    for size in np.unique(params):
        x[params == size] -= x[params == size].mean()
        y[params == size] -= y[params == size].mean()
    return float(x @ y / (x @ x))


def trade(data):
    """The smaller of two: how much fewer steps the largest batch takes than the smallest to one loss, how much more tokens; mean ln ratios."""
    _, _, batches, steps = crossings.crossings(averaged(data.where(**FITTED)))
    fewer = np.log(steps[:, 0] / steps[:, -1]).mean()
    return float(min(fewer, np.log(batches[-1] / batches[0]) - fewer))


def left_out(data):
    """Error of steps to a loss at a batch size left out, in percent: by the hyperbola through the others."""
    return _left_out(data)[0]


def left_out_tokens(data):
    """The same if every batch size took the mean tokens of the others."""
    return _left_out(data)[1]


def _left_out(data):
    _, _, batches, steps = crossings.crossings(averaged(data.where(**FITTED)))
    if len(batches) < 4:
        raise NotTestable(f"{len(batches)} batch sizes: with one left out a hyperbola needs three")
    out = []
    for i, batch in enumerate(batches):
        others, here = np.delete(batches, i), np.delete(steps, i, 1)
        least, critical = crossings.hyperbola(others, here)
        tokens = np.exp(np.log(here * others).mean(1))
        out.append([np.abs(np.log(guess / steps[:, i])) for guess in (least * (1 + critical / batch), tokens / batch)])
    return [100 * float(np.expm1(np.mean(part))) for part in zip(*out, strict=True)]


def critical_batch(data):
    """B_crit at the lowest loss that all batch sizes of a size reach, tokens, by the law fitted to all levels."""
    points = averaged(data.where(**FITTED))
    law = crossings.critical_law(points)
    return float(law.predict({"loss": np.array([crossings.crossings(points)[1].min()])})[0])


def exponent(name, form=LAW):
    """An exponent of the law fitted to all fitted sizes and batch sizes."""
    return lambda data: fitted(form, averaged(data.where(**FITTED)))[name]


# --- text of known entropy ---------------------------------------------------------------------------------------------------


def entropy(data):
    """The entropy of the test windows under the source itself, nats per token."""
    floors = data.where(**SOURCES)["floor"]
    if not len(floors):
        raise NotTestable("no run on text of known entropy at this scale, or the command line chose the text")
    return float(floors[0])


def floor_gain(data):
    """Error of Kaplan's form, whose floor is zero, minus that of the form with the true floor, on the size held out, in percent of the loss."""
    true = entropy(data)
    known, held = split(data, "params", SOURCES)
    return 100 * float(law_errors(known, held).mean() - law_errors(known, held, WITH_FLOOR, true).mean())


def known_error(form, floor=None):
    """Median error on the held-out size of the text of known entropy, in percent; floor: None fits it, else "true"."""

    def statistic(data):
        true = entropy(data)
        return 100 * float(np.median(law_errors(*split(data, "params", SOURCES), form, true if floor == "true" else None)))

    return statistic


def floor_found(data):
    """The floor fitted to all sizes, minus the true one, nats per token."""
    true = entropy(data)
    return fitted(WITH_FLOOR, averaged(data.where(**SOURCES)))["E"] - true


# --- what chance permutes ----------------------------------------------------------------------------------------------------


def _last_two(column, where):
    """`where`, of the value of `column` held out and the nearest one fitted, in the cells that have runs of both."""
    other = "batch" if column == "params" else "params"

    def chosen(data):
        part = data.where(**where)
        values = np.unique(part[column])[-2:].tolist()
        both = set.intersection(*(set(part.where(**{column: value})[other].tolist()) for value in values))
        return {**where, column: values, other: sorted(both)}

    return chosen


# What is held out might be no different from its nearest neighbour: that neighbour's curve would be all there is to know.
_LAST_SIZES = "the two largest sizes of the runs of one batch size and seed"
SIZES_EXCHANGED = permute("params", within=("batch", "seed"), where=_last_two("params", SIZES), text=_LAST_SIZES)
KNOWN_EXCHANGED = permute("params", within=("batch", "seed"), where=_last_two("params", SOURCES), text=_LAST_SIZES)
HELD_BATCH_EXCHANGED = permute(
    "batch",
    within=("params", "seed"),
    where=_last_two("batch", BATCHES),
    text="the two largest batch sizes of the runs of one size and seed",
)


@dataclasses.dataclass(frozen=True)
class CurvesExchanged:
    """An exchange for `permute`'s place: the batch sizes of the whole curves of one size, all seeds of a curve together.

    Where every batch size gains alike as the loss falls, and only then, one order of the curves is as good as another: so it is chance
    for a trend, even where steps do depend on the batch. Exchanging single runs would mix curves of different lengths into one.
    """

    def describe(self):
        return "batch sizes of the curves of one size"

    def arrangements(self, data):
        return math.prod(math.factorial(len(batches)) for _, batches, _ in self._curves(data))

    def __call__(self, data, rng):
        column = data["batch"]
        for rows, batches, which in self._curves(data):
            column[rows] = rng.permutation(batches)[which]
        return data.replace("batch", column)

    def _curves(self, data):
        """Per size: rows [r] of the view, its batch sizes, and which of them each row has [r]."""
        fitted = (data["setting"] == FITTED["setting"]) & (data["stage"] == FITTED["stage"])
        for size in np.unique(data["params"][fitted]):
            rows = np.flatnonzero(fitted & (data["params"] == size))
            yield rows, *np.unique(data["batch"][rows], return_inverse=True)


BATCHES_EXCHANGED = permute("batch", within=("params", "seed"), where=FITTED, text="batch sizes of the runs of one size and seed")
