"""Over-training, what is measured: errors of laws on runs they have not seen, and how parallel the lines of constant M are."""

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np

from scaling_jax.laws import fitting, forms
from scaling_jax.laws.form import NotTestable
from scaling_jax.studies.claims import permute

from .published import compute_power

OWN = ("cheap", "held_out")
ETAS = np.geomspace(0.01, 1.5, 200)
SAME = 1e-6  # two predictions this close, relatively, say the same: fits end there


def own(data, use=None):
    """Our own runs, or those of one use: "fit", "held out"."""
    part = data.where(stage=OWN) if use is None else data.where(stage=OWN, use=use)
    if not len(part):
        raise NotTestable("the runs this needs were not trained")
    return part


def own_law(data):
    """L(C, M) fitted to the cheap runs: {E, a, b, eta}."""
    return law(own(data, "fit"))


def own_rival(data):
    """The line through the cheap runs at the smallest M, against compute alone: a Fit."""
    part = own(data, "fit")
    part = part.where(multiplier=part["multiplier"].min())
    return fitting.fit(compute_power, {name: part[name] for name in ("compute", "loss")})


def own_errors(data, predict):
    """|predicted / measured - 1| of the mean loss of every held-out cell; predict: columns -> losses."""
    part, out = own(data, "held out"), []
    for cell in dict.fromkeys(zip(part["size"].tolist(), part["multiplier"].tolist(), strict=True)):
        here = part.where(size=cell[0], multiplier=cell[1])
        predicted = predict({name: here[name][:1] for name in ("params", "tokens", "compute")})
        out.append(abs(float(predicted[0]) / here.mean() - 1))
    return np.array(out)


def own_error(data):
    """Mean relative error of the law over held-out cells."""
    found = own_law(data)
    return float(own_errors(data, lambda columns: forms.over_training.predict(found, columns)).mean())


def own_rival_error(data):
    """The same of the line in compute."""
    return float(own_errors(data, own_rival(data).predict).mean())


def own_gain(data):
    """Mean relative error of the rival minus that of the law, over held-out cells."""
    return own_rival_error(data) - own_error(data)


def paper(data, **where):
    """Published runs."""
    part = data.where(stage="published", **where)
    if not len(part):
        raise NotTestable("the published runs were not read")
    return part


def relative(part, predicted, measured):
    """Mean of |predicted / measured - 1| over the rows."""
    return float(np.mean(np.abs(part[predicted] / part[measured] - 1)))


def loss_error(data):
    """Mean relative error of the loss law over published held-out runs."""
    return relative(paper(data, use="held out"), "predicted", "loss")


def loss_gain(data):
    """The same of the line through M = 20, minus that of the law."""
    return relative(paper(data, use="held out"), "rival", "loss") - loss_error(data)


def task_error(data):
    """Mean relative error of the predicted average top-1 error over published held-out runs; the loss is predicted, too."""
    return relative(paper(data, error_held_out=1), "predicted_error", "error")


def task_gain(data):
    """The same of a law in compute alone, minus that."""
    return relative(paper(data, error_held_out=1), "rival_error", "error") - task_error(data)


def own_unevenness(data):
    """Root mean square of s_M / mean(s) - 1 over our lines of constant M, s_M the slope of ln(L - E) against ln C."""
    return float(np.sqrt(np.mean(_slopes(own(data)) ** 2)))


def paper_unevenness(data):
    """The same over the published lines with M of 20 or more, all training sets."""
    part = paper(data, over_trained=1)
    return float(
        np.sqrt(np.mean(np.concatenate([_slopes(part.where(train_set=one)) ** 2 for one in dict.fromkeys(part["train_set"].tolist())])))
    )


def _slopes(part):
    """s_M / mean(s) - 1 of every M with two sizes or more; infinite where the floor of the law lies above some loss, and no exponent exists."""
    above = part["loss"] - law(part)["E"]
    if not above.min() > 0:
        return np.array([np.inf])
    y, x, multiplier, found = np.log(above), np.log(part["params"] * part["tokens"].astype(np.float64)), part["multiplier"], []
    for one in sorted(set(multiplier.tolist())):
        here = multiplier == one
        centred = x[here] - x[here].mean()
        if len(set(part["size"][here].tolist())) > 1:
            found.append((centred * y[here]).sum() / (centred**2).sum())
    if len(found) < 2:
        raise NotTestable("fewer than two lines of constant M with two sizes each")
    return np.array(found) / np.mean(found) - 1


def law(part):
    """The least-squares fit of forms.over_training to rows, {E, a, b, eta}, E >= 0: by variable projection, linear in E, a, b at every eta.

    The least residual over a grid of eta, and the parabola in ln eta through it and its neighbours; laws.fit finds the same to four digits.
    A null test fits thousands of times and moves losses only, so the projections are kept: a thirtieth of a millisecond a fit.

    Raises:
      NotTestable: as few cells as parameters, or fewer; a run that diverged.
    """
    params, tokens, loss = (np.asarray(part[name], np.float64) for name in ("params", "tokens", "loss"))
    if not np.isfinite(loss).all():
        raise NotTestable("loss is nan in some rows: a run diverged")
    if len(set(zip(params.tolist(), tokens.tolist(), strict=True))) <= 4:
        raise NotTestable("no degree of freedom: the law has 4 parameters and needs 5 cells")
    key = tuple(params.tolist()), tuple(tokens.tolist())
    eta, scales = _best(*key, True, loss)
    if scales[0] < 0:
        eta, scales = _best(*key, False, loss)
        scales = [0.0, *scales]
    geometric = [float(np.exp(np.mean(np.log(values)))) for values in (params, tokens)]
    a, b = (scale * (6 * one**2) ** eta for scale, one in zip(scales[1:], geometric, strict=True))
    return {"E": float(scales[0]), "a": float(a), "b": float(b), "eta": float(eta)}


def _best(params, tokens, with_floor, loss):
    """eta, and the scales of what the law adds up there: of the size and data terms in units of their geometric means."""
    bases, columns = _projections(params, tokens, with_floor)
    explained = (np.einsum("enp,n->ep", bases, loss) ** 2).sum(1)
    best, eta = int(explained.argmax()), ETAS[explained.argmax()]
    if 0 < best < len(ETAS) - 1:
        left, here, right = explained[best - 1 : best + 2]
        eta *= (ETAS[1] / ETAS[0]) ** (0.5 * (left - right) / (left - 2 * here + right))
    return eta, np.linalg.lstsq(columns(eta), loss, rcond=None)[0]


@functools.lru_cache(maxsize=64)
def _projections(params, tokens, with_floor):
    """Orthonormal bases [eta, n, p] of what the law can say at each eta, and the function eta -> its columns [n, p]."""
    size, data = (np.log(np.array(values)) - np.mean(np.log(values)) for values in (params, tokens))

    def columns(eta):
        eta = np.asarray(eta)[..., None]
        terms = [np.exp(-2 * eta * size), np.exp(-2 * eta * data)]
        return np.stack(np.broadcast_arrays(*([np.ones(1)] if with_floor else []), *terms), axis=-1)

    return np.linalg.qr(columns(ETAS))[0], columns


@dataclass(frozen=True)
class SwapPredictors:
    """The null of a comparison of two predictors: for all held-out runs of one size, in all training sets at once, which one said what.

    Errors of one size have a common part that repeats from training set to training set, so they change places together. A size of which
    both say the same (a law and its line at M = 20) has nothing to exchange and is no relabeling.
    """

    first: str
    second: str
    chosen: tuple

    def describe(self):
        return f"what {self.first} and {self.second} say of each size"

    def arrangements(self, data):
        return 2 ** len(self._sizes(data))

    def __call__(self, data, rng):
        sizes = self._sizes(data)
        return self._swapped(data, sizes, rng.random(len(sizes)) < 0.5)

    def every(self, data):
        """All of them, the data as they are first."""
        sizes = self._sizes(data)
        for swaps in itertools.product((False, True), repeat=len(sizes)):
            yield self._swapped(data, sizes, swaps)

    def _sizes(self, data):
        """The rows of each size that may change places, bool [n] each."""
        name, value = self.chosen
        chosen = (data["stage"] == "published") & (data[name] == value)
        masks = [chosen & (data["size"] == size) for size in dict.fromkeys(data["size"][chosen].tolist())]
        return [mask for mask in masks if not np.allclose(data[self.first][mask], data[self.second][mask], rtol=SAME, atol=0.0)]

    def _swapped(self, data, sizes, swaps):
        first, second = data[self.first], data[self.second]
        swap = np.any([mask for mask, one in zip(sizes, swaps, strict=True) if one] or np.zeros((1, len(data)), bool), axis=0)
        return data.replace(self.first, np.where(swap, second, first)).replace(self.second, np.where(swap, first, second))


@dataclass(frozen=True)
class PermuteM:
    """The null of a law in M: runs of one size might as well have exchanged what they measured, in all training sets at once.

    Runs of one size and M err alike in all training sets, so they move together; those of an M that some training set lacks stay.

    moves: the column that moves; chosen: (column, value) of the published rows that take part; text: what they are called.
    """

    moves: str
    chosen: tuple
    text: str

    def describe(self):
        return f"values of M of {self.text} of each size, in all training sets at once"

    def arrangements(self, data):
        return math.prod(math.factorial(len(rows)) for rows in self._runs(data))

    def __call__(self, data, rng):
        runs = self._runs(data)
        return self._moved(data, runs, [rng.permutation(len(rows)) for rows in runs])

    def every(self, data):
        """All of them, the data as they are first."""
        runs = self._runs(data)
        for orders in itertools.product(*(itertools.permutations(range(len(rows))) for rows in runs)):
            yield self._moved(data, runs, orders)

    def _runs(self, data):
        """The rows of each size that move, [values of M, training sets], where there are two values of M or more."""
        name, value = self.chosen
        found = {}
        rows = np.flatnonzero((data["stage"] == "published") & (data[name] == value))
        for row, *key in zip(rows.tolist(), *(data[one][rows].tolist() for one in ("size", "multiplier", "train_set")), strict=True):
            size, multiplier, train_set = key
            found.setdefault(size, {}).setdefault(multiplier, {})[train_set] = row
        sets = sorted(set(data["train_set"][rows].tolist()))
        shared = [[[by_set[one] for one in sets] for by_set in by_m.values() if len(by_set) == len(sets)] for by_m in found.values()]
        return [np.array(one) for one in shared if len(one) > 1]

    def _moved(self, data, runs, orders):
        old = data[self.moves]
        values = old.copy()
        for rows, order in zip(runs, orders, strict=True):
            values[rows] = old[rows[list(order)]]
        return data.replace(self.moves, values)


# Runs of one size might as well have seen each other's numbers of tokens: nothing is learnt from M.
OWN_M = permute(
    "multiplier", within="size", where={"stage": OWN, "use": "fit"}, moves="loss", text="values of M of the cheap runs of each size"
)
OWN_LINES = permute("multiplier", within="size", where={"stage": OWN}, moves="loss", text="values of M of the runs of each size")
PAPER_LINES = PermuteM("loss", ("over_trained", 1), "runs at M of 20 and more")
PAPER_M = PermuteM("loss", ("use", "held out"), "held-out runs")
PAPER_TASKS = PermuteM("error", ("error_held_out", 1), "held-out runs")
# Runs of equal compute might as well have exchanged sizes: then a line in compute says all there is to say.
EQUAL_COMPUTE = permute("size", within="rung", where={"stage": OWN}, moves="loss", text="sizes of runs of about equal compute")
LOSS_PREDICTORS = SwapPredictors("predicted", "rival", ("use", "held out"))
TASK_PREDICTORS = SwapPredictors("predicted_error", "rival_error", ("error_held_out", 1))


def eta(data):
    """The exponent of the law fitted to our cheap runs."""
    return own_law(data)["eta"]


def limit(data):
    """E of the law fitted to our cheap runs."""
    return own_law(data)["E"]


def untied(data):
    """E + A / N^alpha + B / D^beta fitted to all our runs: the law says alpha = beta = 2 eta."""
    part = own(data)
    return fitting.fit(forms.chinchilla, {name: part[name] for name in ("params", "tokens", "loss")}, loss="lsq")


def size_exponent(data):
    """alpha of `untied`."""
    return untied(data)["alpha"]


def data_exponent(data):
    """beta of `untied`."""
    return untied(data)["beta"]


def headline(train_set, size, multiplier, predicted="predicted", measured="loss"):
    """A statistic: the relative error of one published run, in percent."""

    def statistic(data):
        return 100 * relative(paper(data, train_set=train_set, size=size, multiplier=multiplier), predicted, measured)

    return statistic
