"""Resampled fits: the bootstrap over rows or over clusters of rows (seeds, teams), all refits as one batch."""

from dataclasses import dataclass

import numpy as np

from scaling_jax.laws.fitting import fit, problem
from scaling_jax.laws.form import NotTestable
from scaling_jax.laws.profile import straight

FEWEST = 5  # rows or clusters: with four, every 256th resample is one of them over and over, and a 95% interval wants rarer ones
DEGENERATE = 0.2  # share of resamples without a degree of freedom from which on a bootstrap says nothing


@dataclass(frozen=True)
class Resamples:
    """Refits of one law: `samples` name -> float64 [B], of the resamples that had a degree of freedom and converged.

    groups: rows or clusters that were drawn from. drawn: resamples asked for. degenerate: share of them with too few distinct inputs to
    fit. lost: share that did not converge.
    """

    samples: dict
    drawn: int
    degenerate: float
    lost: float
    seed: int
    groups: int

    def of(self, quantity):
        """The quantity's draws [B]: a parameter's, or a function's of {name: array}."""
        if isinstance(quantity, str):
            return self.samples[quantity]
        with np.errstate(all="ignore"):
            return np.asarray(quantity(self.samples), np.float64)


def bootstrap(found, count=4000, seed=0, clusters=None):
    """Refits of a law to `count` resamples of its rows, drawn with replacement.

    Args:
      clusters: label of each row's cluster [n, in the order of found.points]; whole clusters are drawn, as where rows share a run.
    Raises:
      NotTestable: fewer than five rows or clusters, use the jackknife; or a fifth of the resamples or more have too few distinct inputs:
        there are too few rows, use the profile.
    Source: Efron 1979; refits start from the fit, and every one is followed to the end of its digits (see solve.py).
    """
    task = problem(found)
    group = np.arange(found.n) if clusters is None else codes(clusters, found.n)
    most = int(group.max()) + 1
    if most < FEWEST:
        raise NotTestable(
            f"{most} {'rows' if clusters is None else 'clusters'} are too few for a bootstrap, it takes {FEWEST}; use the jackknife"
        )
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(most, np.full(most, 1 / most), count).astype(np.float64)[:, group]
    enough = _distinct(task, drawn) > int(task.free.sum())
    degenerate = 1 - float(enough.mean())
    if degenerate > DEGENERATE:
        raise NotTestable(
            f"{degenerate:.0%} of resamples have too few distinct inputs to fit {found.form.name}: {most} rows or clusters are too few for a bootstrap; use the profile interval"
        )
    samples, converged = refit(found, drawn[enough] * task.points.weights)
    return Resamples(
        {name: values[converged] for name, values in samples.items()}, count, degenerate, 1 - float(converged.mean()), seed, most
    )


def deletions(found, clusters=None):
    """Refits that leave out one row, or one cluster, at a time: {name: [G]}.

    Raises:
      NotTestable: without one of them the law cannot be fitted.
    """
    task = problem(found)
    group = np.arange(found.n) if clusters is None else codes(clusters, found.n)
    kept = (group[None, :] != np.arange(int(group.max()) + 1)[:, None]).astype(np.float64)
    if (_distinct(task, kept) <= int(task.free.sum())).any():
        raise NotTestable(f"no interval: without one row or cluster too few distinct inputs are left to fit {found.form.name}")
    samples, converged = refit(found, kept * task.points.weights)
    for i in np.flatnonzero(~converged).tolist():  # the descent from the fit got stuck: a search of its own
        again = _searched(found, kept[i] * task.points.weights)
        if not again.converged:
            raise NotTestable(f"no interval: without one row or cluster the search for {found.form.name} does not converge")
        for name in samples:
            samples[name][i] = again[name]
    return samples


def _searched(found, weights):
    """The law fitted anew, from all starts, under these weights [n]."""
    points = found.points
    how = dict(fixed=found.fixed, weights=weights, loss=found.loss) | (dict(delta=found.delta) if found.loss == "huber" else {})
    return fit(found.form, {**points.columns, found.form.y: points.target}, **how)


def refit(found, weights):
    """The law refitted under B sets of row weights [B, n]: ({name: [B]}, converged [B]). Each starts from the fit."""
    task = straight(found)
    x = task.encode(np.array([[found.params[name] for name in task.form.params]]))
    solved = task.minimise(np.repeat(x, len(weights), 0), weights)
    values = task.decode(solved.x)
    return {name: values[:, i] for i, name in enumerate(task.form.params)}, solved.converged & np.isfinite(solved.objective)


def codes(labels, n):
    """Cluster numbers [n] of labels."""
    labels = np.asarray(labels)
    if labels.shape != (n,):
        raise ValueError(f"clusters: expected {n} labels, one per fitted row, got shape {labels.shape}")
    return np.unique(labels, return_inverse=True)[1]


def _distinct(task, weights):
    """Number of distinct inputs with weight, for each set of weights [B, n] -> [B]."""
    inputs = np.stack(list(task.points.columns.values()), 1)
    _, which = np.unique(inputs, axis=0, return_inverse=True)
    which = which.reshape(-1)
    held = np.zeros((len(weights), int(which.max()) + 1), bool)
    for row, one in enumerate(which):
        held[:, one] |= weights[:, row] > 0
    return held.sum(1)
