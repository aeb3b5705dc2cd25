"""Known floor, what is measured: how far a fitted floor lies from the true one, who predicts what was held out, who lies below."""

import dataclasses
import functools
import math

import numpy as np

from scaling_jax.laws import fitting, forms, statistics
from scaling_jax.laws.form import NotTestable
from scaling_jax.studies.claims import permute

PLATEAU = "order 2"  # its models first rest at the entropy of shorter contexts: no power law, and no claim about its fitted floor
HELD = 2  # largest numbers of tokens that are held out
DATA = {"stage": "data"}

# Losses that do not fall with tokens must have a law with a given floor too, or chance would reject every floor.
STEADY = dataclasses.replace(forms.data_power, name="data_power_steady", bounds={**forms.data_power.bounds, "beta": (1e-5, 5.0)})

# The null test fits the joint law a thousand times: two starts instead of 49; the tests compare the minima.
JOINT = dataclasses.replace(forms.chinchilla, starts={"alpha": (0.7,), "beta": (0.6, 1.2)})


def sources(data):
    """The sources whose floor is claimed to be found."""
    found = [name for name in np.unique(data.where(**DATA)["source"]).tolist() if name != PLATEAU]
    if not found:
        raise NotTestable("no text of known entropy has been trained on")
    return found


def true(data, source):
    """The floor of a source, nats per token."""
    value = float(data.where(source=source)["floor"][0])
    if not math.isfinite(value):
        raise NotTestable(f"the entropy of the text is not known: {source} was replaced by another source")
    return value


def points(data, source):
    """(tokens, mean loss over seeds, weights) of the largest size."""
    part = data.where(**DATA, source=source)
    if not len(part):
        raise NotTestable(f"no text {source} was trained on here")
    if np.isnan(part["loss"]).any():
        raise NotTestable(f"{source}: a run diverged")
    return summary(part["tokens"], part["loss"])


def summary(tokens, loss):
    """(distinct tokens, mean losses, weights): inverse variances, where ln sd over seeds is a line in ln tokens; equal where none is known.

    Seeds differ by a share of the excess, which falls by a factor of 50: without weights one slow start of a short run would move the floor.
    """
    at, inverse, count = np.unique(tokens, return_inverse=True, return_counts=True)
    means = np.bincount(inverse, loss) / count
    square = np.bincount(inverse, (loss - means[inverse]) ** 2)
    several = (count > 1) & (square > (1e-9 * means) ** 2)
    if several.sum() < 3:
        return at.astype(float), means, np.ones(len(at))
    x, y = np.log(at), 0.5 * np.log(square[several] / (count[several] - 1))
    slope = np.polyfit(x[several], y, 1)[0]
    return at.astype(float), means, np.exp(-2 * slope * (x - x.mean()))


@functools.lru_cache(maxsize=4096)
def _fitted(tokens, loss, weights, floor):
    at = {"tokens": np.frombuffer(tokens), "loss": np.frombuffer(loss)}
    form, fixed = (forms.data_power, None) if floor is None else (STEADY, {"E": floor})
    return fitting.fit(form, at, fixed=fixed, weights=np.frombuffer(weights))


def fitted(tokens, loss, weights, floor=None):
    """L = E + B / D^beta, weighted least squares; floor: a given E. Kept, for claims and estimates ask for the same fits."""
    return _fitted(*(np.asarray(one, np.float64).tobytes() for one in (tokens, loss, weights)), floor)


def gap(source):
    """A statistic: the floor fitted to the largest size of `source` minus the true one, in percent of it."""
    return lambda data: 100 * (fitted(*points(data, source))["E"] / true(data, source) - 1)


def worst_gap(data):
    """The largest |fitted floor / true one - 1| over sources, in percent."""
    return max(abs(gap(source)(data)) for source in sources(data))


def rate_gap(data):
    """The fitted floor of the first-order chain minus its exact entropy rate, in percent: test windows included."""
    rate = float(data.where(source="order 1")["entropy"][0])
    return 100 * (fitted(*points(data, "order 1"))["E"] / rate - 1)


def afar(source):
    """A statistic: `gap` of the law that has not seen the largest numbers of tokens."""

    def statistic(data):
        seen = (one[:-HELD] for one in points(data, source))
        return 100 * (fitted(*seen)["E"] / true(data, source) - 1)

    return statistic


def last_excess(source):
    """A statistic: the excess of the largest size at the most tokens, in percent."""
    return lambda data: 100 * (points(data, source)[1][-1] / true(data, source) - 1)


# --- the joint law -----------------------------------------------------------------------------------------------------------


def joint_points(data):
    """Means over seeds of all sizes of the first-order chain: {params, tokens, loss}."""
    part = data.where(source="order 1")
    keys, inverse = np.unique(np.stack([part["params"], part["tokens"]]), axis=1, return_inverse=True)
    if len(set(keys[0].tolist())) < 3:
        raise NotTestable(f"{len(set(keys[0].tolist()))} sizes on the first-order chain, a law in size needs three")
    loss = np.bincount(inverse.reshape(-1), part["loss"]) / np.bincount(inverse.reshape(-1))
    if np.isnan(loss).any():
        raise NotTestable("a run diverged")
    return {"params": keys[0].astype(float), "tokens": keys[1].astype(float), "loss": loss}


def joint_gap(data):
    """|E / true floor - 1| of L = E + A / N^alpha + B / D^beta over all sizes of the first-order chain, in percent."""
    return abs(signed_joint_gap(data))


def signed_joint_gap(data):
    """`joint_gap` with its sign."""
    return 100 * (fitting.fit(JOINT, joint_points(data), loss="log")["E"] / true(data, "order 1") - 1)


def size_steepening(data):
    """ln(excess) / ln(N) between the two largest sizes minus that between the two smallest, at the most tokens; 0 for a power law."""
    part = data.where(source="order 1")
    means = part.where(tokens=part["tokens"].max()).by("params", "excess")
    if len(means) < 3 or (means <= 0).any():
        raise NotTestable("needs three sizes that lie above the floor")
    slopes = np.diff(np.log(means.to_numpy())) / np.diff(np.log(np.asarray(means.index, float)))
    return float(slopes[-1] - slopes[0])


# --- what was held out -------------------------------------------------------------------------------------------------------


def held_error(data, source, floor=None):
    """Mean |prediction / measured - 1| at the largest numbers of tokens, in percent, of the law fitted to the others.

    floor: E in units of the true one; None: fitted.
    """
    tokens, loss, weights = points(data, source)
    if len(tokens) < HELD + 3:
        raise NotTestable(f"{len(tokens)} numbers of tokens: the law needs three and {HELD} are held out")
    law = fitted(tokens[:-HELD], loss[:-HELD], weights[:-HELD], None if floor is None else floor * true(data, source))
    return 100 * float(np.abs(law.predict(tokens=tokens[-HELD:]) / loss[-HELD:] - 1).mean())


def error(floor=None):
    """A statistic: `held_error`, mean over sources."""
    return lambda data: float(np.mean([held_error(data, source, floor) for source in sources(data)]))


def gain(worse, better=None):
    """A statistic: error of the law with a floor of `worse` times the true one, minus that with `better` (None: a fitted one)."""
    return lambda data: error(worse)(data) - error(better)(data)


# --- the floor itself --------------------------------------------------------------------------------------------------------


def smallest_excess(data):
    """The smallest mean excess of any source, size and number of tokens, in percent of the floor."""
    for source in np.unique(data["source"]).tolist():
        true(data, source)
    return float(data.by("point", "excess").min())


def intervals_of_floors(frame):
    """Of every source: floor fitted to means over seeds, its 95% profile interval, the true one, and how many single seeds' intervals cover it.

    Rows of the stage "data" as a pandas frame; a list of (source, E, low, high, true, seeds that cover, seeds). A source whose law cannot be
    fitted is left out. Counts, not shares with intervals: seeds share their test windows.
    """
    out = []
    for source, part in frame[frame["stage"] == "data"].groupby("source"):
        known = float(part["floor"].iloc[0])
        try:
            whole = summary(part["tokens"].to_numpy(), part["loss"].to_numpy())
            value, low, high = _ends(*whole)
            alone = [own.sort_values("tokens")["loss"].to_numpy() for _, own in part.groupby("seed")]
            single = [_ends(whole[0], loss, whole[2])[1:] for loss in alone]
        except NotTestable:
            continue
        out.append((source, value, low, high, known, sum(a <= known <= b for a, b in single), len(single)))
    return out


def _ends(tokens, loss, weights):
    found = fitted(tokens, loss, weights).interval("E")
    return found.value, found.low, found.high


# --- what chance permutes ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Mirrored:
    """An exchange: a run might as well lie as far below its floor as it lies above, if models were no worse than the generator."""

    def describe(self):
        return "the signs of the runs' distances from their floors"

    def arrangements(self, data):
        return min(2 ** len(data), statistics.CAP)

    def __call__(self, data, rng):
        return data.replace("excess", np.where(rng.random(len(data)) < 0.5, -1.0, 1.0) * data["excess"])


TOKENS = permute("tokens", within=("source", "seed"), where=DATA, text="numbers of tokens of the runs of one source and seed")
SIZES = permute("params", within=("tokens", "seed"), where={"source": "order 1"}, text="sizes of the runs of one number of tokens and seed")
