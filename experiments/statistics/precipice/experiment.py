"""An experiment as a laboratory would run it: a few runs of every agent on every task, aggregated, with bootstrap intervals."""

import itertools
from dataclasses import dataclass

import numpy as np

from scaling_jax.laws import bootstrap, reliability
from scaling_jax.records import field

from . import learning
from .learning import AGENTS, Training

PAIRS = tuple(itertools.combinations(AGENTS, 2))
AHEAD = tuple(f"{a} ahead of {b}" for a, b in PAIRS)
AGGREGATES = ("iqm", "median", "mean", "optimality_gap")
TAUS = tuple(round(0.05 * i, 2) for i in range(-4, 25))


@dataclass(frozen=True)
class Experiment:
    """One laboratory's experiment.

    runs: of every agent on every task; an experiment of three runs is the first three of one of ten. cut: what the trimmed mean
    cuts from each side, 0.25 for the interquartile mean. replicates: of the bootstrap.
    """

    training: Training = field(Training)
    runs: tuple[int, ...] = field((3, 5, 10), at_least=2)
    cut: float = field(reliability.QUARTER, at_least=0.0, below=0.5)
    replicates: int = field(2000, at_least=2)
    method: str = field("percentile", choices=bootstrap.METHODS)


@dataclass(frozen=True)
class Pool:
    """Many runs, whose aggregates are taken for the true values: what an experiment with any number of runs would find."""

    training: Training = field(Training)
    runs: int = field(100, at_least=2)
    cut: float = field(reliability.QUARTER, at_least=0.0, below=0.5)


def experiment(settings, seed):
    """The rows of `summary`, of runs that are made here."""
    return {"rows": summary(learning.scores(settings.training, max(settings.runs), seed), settings, seed)}


def pool(settings, seed):
    """The rows of `pool_summary`, of runs that are made here."""
    return {"rows": pool_summary(learning.scores(settings.training, settings.runs, seed), settings)}


def summary(scores, settings, seed):
    """Rows of an experiment with scores [agent, run, task].

    kind "agent" (n, agent, aggregate): value, low, high, width; kind "rank" (n, aggregate): who of each pair of agents is ahead, a
    tie counting as half.
    """
    rows = []
    for runs in settings.runs:
        of = lambda i, n=runs: bootstrap.interval(
            _aggregates(settings.cut), scores[i, :n], count=settings.replicates, method=settings.method, seed=(seed, n, i)
        )
        found = {name: of(i) for i, name in enumerate(AGENTS)}
        for j, aggregate in enumerate(AGGREGATES):
            for name, one in found.items():
                value, low, high = (float(ends[j]) for ends in (one.value, one.low, one.high))
                numbers = {"value": value, "low": low, "high": high, "width": high - low}
                rows.append({"kind": "agent", "n": runs, "agent": name, "aggregate": aggregate, **numbers})
            sign = -1 if aggregate == "optimality_gap" else 1
            good = {name: sign * one.value[j] for name, one in found.items()}
            ahead = [float((good[a] > good[b]) + (good[a] >= good[b])) / 2 for a, b in PAIRS]
            rows.append({"kind": "rank", "n": runs, "aggregate": aggregate, **dict(zip(AHEAD, ahead, strict=True))})
    return rows


def pool_summary(scores, settings):
    """Rows of a pool with scores [agent, run, task]: kind "pool" (agent, aggregate): value; kind "profile" (agent, tau): share above."""
    rows = []
    for name, table in zip(AGENTS, scores, strict=True):
        shared = {"n": settings.runs, "agent": name}
        values, shares = _aggregates(settings.cut)(table).tolist(), reliability.profile(table, TAUS).tolist()
        rows += [{"kind": "pool", **shared, "aggregate": a, "value": v} for a, v in zip(AGGREGATES, values, strict=True)]
        rows += [{"kind": "profile", **shared, "tau": t, "above": s} for t, s in zip(TAUS, shares, strict=True)]
    return rows


def _aggregates(cut):
    def all_four(x):
        x = reliability.from_table(x)
        rest = (reliability.median, reliability.mean, reliability.optimality_gap)
        return np.stack([reliability.trimmed_mean(x, cut), *(aggregate(x) for aggregate in rest)], axis=-1)

    return all_four
