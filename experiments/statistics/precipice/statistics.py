"""What is measured on experiments of few runs: widths, coverage, agreement and bias, against the pool's values.

Rows carry suite, seed (of the experiment), n (runs per task and agent), agent, aggregate. "Few" and "many" are the smallest and
the largest n of the experiments.
"""

from dataclasses import dataclass

import numpy as np

from scaling_jax.laws.form import NotTestable
from scaling_jax.studies.claims import permute

from .experiment import AHEAD


def few(data):
    """The fewest runs an experiment has."""
    return int(_experiments(data)["n"].min())


def many(data):
    """The most runs an experiment has."""
    return int(_experiments(data)["n"].max())


def _experiments(data):
    part = data.where(kind="agent")
    if not len(part):
        raise NotTestable("no experiment has run yet")
    return part


def truth(data, aggregate):
    """The pool's values: {(suite, agent): (mean over pools, its squared standard error)}."""
    part = data.where(kind="pool", aggregate=aggregate)
    suite, agent, value = part["suite"], part["agent"], part["value"]
    out = {}
    for key in dict.fromkeys(zip(suite.tolist(), agent.tolist(), strict=True)):
        own = value[(suite == key[0]) & (agent == key[1])]
        if len(own) < 2:
            raise NotTestable(f"{len(own)} pool of runs, needs 2 to know how well it is known")
        out[key] = own.mean(), own.var(ddof=1) / len(own)
    if not out:
        raise NotTestable("no pool of runs yet")
    return out


def width(data, n, aggregate):
    """Mean width of the intervals over experiments and agents."""
    return _experiments(data).where(n=n, aggregate=aggregate).mean("width")


def width_ratio(data):
    """Logarithm of the mean width of the median's intervals over that of the interquartile mean's, at few runs."""
    wide, narrow = (width(data, few(data), aggregate) for aggregate in ("median", "iqm"))
    if not (wide > 0 and narrow > 0):
        raise NotTestable("an aggregate's intervals have no width: its scores are all alike")
    return float(np.log(wide / narrow))


def disagreement(data, aggregate):
    """How often two independent experiments with few runs disagree on which of two agents is ahead, averaged over pairs of agents.

    2 N / (N - 1) p (1 - p) where a share p of N experiments has the one ahead: the unbiased estimate; a tie counts as half.
    """
    part = data.where(kind="rank", n=few(data), aggregate=aggregate)
    suite = part["suite"]
    ahead = np.stack([part[name] for name in AHEAD], axis=1)
    found = []
    for one in dict.fromkeys(suite.tolist()):
        own = ahead[suite == one]
        if len(own) < 2:
            raise NotTestable("one experiment, needs 2 that could disagree")
        found.append(2 * own.var(axis=0, ddof=1).mean())
    return float(np.mean(found))


def more_disagreement(data):
    """Disagreement by the median minus that by the interquartile mean."""
    return disagreement(data, "median") - disagreement(data, "iqm")


def coverage(data, n, aggregate="iqm"):
    """Share of the intervals, over experiments and agents, that contain the pool's value."""
    known, part = truth(data, aggregate), _experiments(data).where(n=n, aggregate=aggregate)
    if not len(part):
        raise NotTestable(f"no experiment of {n} runs")
    value = np.array([known[key][0] for key in zip(part["suite"].tolist(), part["agent"].tolist(), strict=True)])
    return float(((part["low"] <= value) & (value <= part["high"])).mean())


def coverage_of_many(data):
    """Coverage of the interquartile mean at many runs."""
    return coverage(data, many(data))


def coverage_of_few(data):
    """Coverage of the interquartile mean at few runs."""
    return coverage(data, few(data))


def squared_bias(data, aggregate):
    """Squared bias at few runs, averaged over suites and agents: (mean error)^2 less the squared errors of both means, unbiased."""
    part = _experiments(data).where(n=few(data), aggregate=aggregate)
    suite, agent, value = part["suite"], part["agent"], part["value"]
    found = []
    for (one, name), (known, noise) in truth(data, aggregate).items():
        own = value[(suite == one) & (agent == name)]
        if len(own) < 2:
            raise NotTestable("one experiment, needs 2 to tell bias from noise")
        found.append((own.mean() - known) ** 2 - own.var(ddof=1) / len(own) - noise)
    return float(np.mean(found))


def more_bias(data):
    """Squared bias of the median minus that of the interquartile mean, at few runs."""
    return squared_bias(data, "median") - squared_bias(data, "iqm")


@dataclass(frozen=True)
class SwapErrors:
    """The null of `more_bias`: in each experiment, an agent's error by the median might as well be its error by the interquartile mean.

    Errors change places, not values: the two aggregates have different true values.
    """

    def describe(self):
        return "errors of the median and of the interquartile mean, of each experiment and agent"

    def arrangements(self, data):
        return 2 ** len(_pairs(data)[0])

    def __call__(self, data, rng):
        median, iqm, gap = _pairs(data)
        swap = rng.random(len(median)) < 0.5
        value = data["value"]
        value[median[swap]], value[iqm[swap]] = value[iqm[swap]] + gap[swap], value[median[swap]] - gap[swap]
        return data.replace("value", value)


def _pairs(data):
    """Rows of the median and of the interquartile mean of each experiment and agent at few runs, and the true median minus the true interquartile mean."""
    chosen = (data["kind"] == "agent") & (data["n"] == few(data))
    rows = [np.flatnonzero(chosen & (data["aggregate"] == name)) for name in ("median", "iqm")]
    keys = [list(zip(*(data[name][own].tolist() for name in ("suite", "seed", "agent")), strict=True)) for own in rows]
    if keys[0] != keys[1]:
        raise ValueError("rows of the median and of the interquartile mean are not those of the same experiments and agents")
    known = [truth(data, name) for name in ("median", "iqm")]
    gap = np.array([known[0][suite, agent][0] - known[1][suite, agent][0] for suite, _, agent in keys[0]])
    return *rows, gap


def _at_few(kind, **where):
    return lambda data: {"kind": kind, "n": few(data), **where}


BOTH = ("iqm", "median")
# Runs of different agents are independent: which of an agent's two numbers is the median's is a toss for each agent.
AGGREGATES = permute(
    "aggregate",
    within=("suite", "seed", "agent"),
    where=_at_few("agent", aggregate=BOTH),
    text="median and interquartile mean of each experiment and agent",
)
# Pairs of agents share agents: here the two rankings of a whole experiment change places.
RANKINGS = permute(
    "aggregate",
    within=("suite", "seed"),
    where=_at_few("rank", aggregate=BOTH),
    text="rankings by median and by interquartile mean of each experiment",
)
# An interval that covers whatever it is asked to cover says nothing: here it is asked for another agent's value.
INTERVALS = permute(
    "agent",
    within=("suite", "seed"),
    where=lambda data: {"kind": "agent", "n": many(data), "aggregate": "iqm"},
    text="agents of each experiment",
)
RUNS = permute(
    "n", within=("suite", "seed", "agent"), where={"kind": "agent", "aggregate": "iqm"}, text="numbers of runs of each experiment and agent"
)
