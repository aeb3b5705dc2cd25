"""Intervals of a statistic over independent runs: the stratified delete-one jackknife with t quantiles.

Why not the percentile bootstrap: at three seeds its 95% interval covers 75%. The jackknife is the classical t
interval wherever that exists (a mean, Welch's difference of means), and goes on to smooth functions of means, fits,
and statistics of rows that share runs (an ensemble depends on several). It is for smooth statistics: a best point
of a grid, a median, an extreme jump when a run is left out or do not move at all; fit a curve and use its minimum.
"""

from dataclasses import dataclass

import numpy as np

from scaling_jax.laws.fit import NotTestable

ROUNDING = 1e-12  # a spread below this share of the values is rounding, not variation


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided interval: value +- t_dof se; scalars, or arrays of one shape.

    Where no run moves the value se and dof are 0 and the ends nan: nothing was learnt about its error.
    """

    value: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    se: float | np.ndarray
    dof: float | np.ndarray


def jackknife(statistic, strata, level=0.95):
    """Interval of `statistic` over independent runs, by leaving out one run at a time within each cell.

    v_c = (n_c - 1) / n_c sum_i (T_(c,-i) - mean_i T_(c,-i))^2,  se^2 = sum_c v_c,  dof = se^4 / sum_c v_c^2 / (n_c - 1)

    Args:
      statistic: function from the frozenset of run ids left out to a float or an array; called once, and once per run.
      strata: cell -> ids of its runs, which differ in nothing but the seed.
      level: coverage asked for.
    Raises:
      NotTestable: a cell that matters has one run; or the statistic does not exist without some run.
    Source: Efron and Stein 1981 (variance, biased upwards); Satterthwaite 1946 (degrees of freedom).
    """
    return from_deletions(*deletions(statistic, strata), level=level)


def deletions(statistic, strata):
    """The statistic on all runs, and without each run in turn for the cells that move it: (T, {cell: T_(c,-i) [n_c, ...]}).

    A cell matters when leaving out some run of it changes the value in any bit.

    Raises:
      NotTestable: as `jackknife`. ValueError: a run in two cells.
    """
    runs = [run for members in strata.values() for run in members]
    if len(set(runs)) < len(runs):
        raise ValueError(f"strata: run {next(r for r in runs if runs.count(r) > 1)!r} is listed twice; a run belongs to one cell, once")
    value = np.asarray(statistic(frozenset()), np.float64)
    if not np.isfinite(value).all():
        raise NotTestable(f"the statistic is {value}, not a finite number")
    out = {}
    for cell, members in strata.items():
        without = np.stack([_without(statistic, run, cell, len(members)) for run in members])
        if (without == value).all():
            continue
        if len(members) == 1:
            raise NotTestable(_too_few(cell))
        out[cell] = without
    return value, out


def from_deletions(value, without, level=0.95):
    """The interval of `jackknife` from what `deletions` returns."""
    from scipy.special import stdtrit

    variance, spread, size = np.zeros((3, *np.shape(value)))
    for values in without.values():
        n = len(values)
        v = (n - 1) / n * ((values - values.mean(0)) ** 2).sum(0)
        variance, spread = variance + v, spread + v**2 / (n - 1)
        size = np.maximum(size, np.abs(values).max(0))
    moves = variance > (ROUNDING * size) ** 2
    se = np.where(moves, np.sqrt(variance), 0.0)
    dof = np.where(moves, variance**2 / np.where(moves, spread, 1.0), 0.0)
    half = np.where(moves, stdtrit(np.where(moves, dof, 1.0), 0.5 + level / 2) * se, np.nan)
    return Interval(*(x[()] for x in (np.asarray(value), value - half, value + half, se, dof)))


def _without(statistic, run, cell, n):
    try:
        value = np.asarray(statistic(frozenset((run,))), np.float64)
    except NotTestable as error:
        raise NotTestable(_too_few(cell) if n == 1 else f"no interval: without run {run} of cell {cell} ({n} seeds), {error}") from error
    if not np.isfinite(value).all():
        raise NotTestable(f"no interval: without run {run} of cell {cell} ({n} seeds) the statistic is {value}, not a finite number")
    return value


def _too_few(cell):
    return f"no interval: cell {cell} has one run and the statistic depends on it; needs 2 seeds or more"
