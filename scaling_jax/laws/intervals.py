"""Intervals: of a statistic over independent runs by the stratified jackknife, of a fitted law by profile, jackknife or bootstrap.

Why not the percentile bootstrap: at three seeds its 95% interval covers 75%. The jackknife is the classical t
interval wherever that exists (a mean, Welch's difference of means), and goes on to smooth functions of means, fits,
and statistics of rows that share runs (an ensemble depends on several). It is for smooth statistics: a best point
of a grid, a median, an extreme jump when a run is left out or do not move at all; fit a curve and use its minimum.
"""

from dataclasses import dataclass

import numpy as np

from scaling_jax.laws.form import NotTestable

PARTNERS = 8  # runs without which it is asked once more whether another one is used
ROUNDING = 1e-12  # a spread below this share of the values is rounding, not variation


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided interval: value +- t_dof se; scalars, or arrays of one shape.

    Where no run moves the value se and dof are 0 and the ends nan: nothing was learnt about its error. The ends of a profile and of
    a bootstrap are not symmetric, and infinite where the data do not bound them. method: how it was made.
    """

    value: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    se: float | np.ndarray
    dof: float | np.ndarray
    method: str = "jackknife"


def jackknife(statistic, strata, level=0.95):
    """Interval of `statistic` over independent runs, by leaving out one run at a time within each cell.

    v_c = (n_c - 1) / n_c sum_i (T_(c,-i) - mean_i T_(c,-i))^2,  se^2 = sum_c v_c,  dof = se^4 / sum_c v_c^2 / (m_c - 1)

    The statistic uses m_c of the n_c runs of a cell (`used`): with five of six it learns its error from five.

    Args:
      statistic: function from the frozenset of run ids left out to a float or an array; called once, once per run, and up to
        PARTNERS times more for a run that moves nothing.
      strata: cell -> ids of its runs, which differ in nothing but the seed.
      level: coverage asked for.
    Raises:
      NotTestable: a cell that matters has one run; or the statistic does not exist without some run.
    Source: Efron and Stein 1981 (variance, biased upwards); Satterthwaite 1946 (degrees of freedom).
    """
    value, without = deletions(statistic, strata)
    return from_deletions(value, without, level, used(statistic, strata, value, without))


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


def used(statistic, strata, value, without):
    """How many runs of each cell the statistic uses, given what `deletions` returned: {cell: m_c}.

    A run is used if leaving it out changes the value in any bit, with all others there or without one of the PARTNERS runs of its cell that
    move the value most: a run at the mean of its cell moves no mean until another is gone, and a step is not taken at every run.
    """
    out = {}
    for cell, values in without.items():
        moved = np.abs(values - value).reshape(len(values), -1).max(1)
        partners = np.argsort(-moved, kind="stable")[:PARTNERS]
        asks = lambda i, cell=cell, values=values, partners=partners: any(
            _changes(statistic, frozenset((strata[cell][i], strata[cell][j])), values[j]) for j in partners if j != i
        )
        out[cell] = sum(bool(far) or asks(i) for i, far in enumerate(moved))
    return out


def _changes(statistic, dropped, value):
    try:
        return bool((np.asarray(statistic(dropped), np.float64) != value).any())
    except NotTestable:
        return True


def from_deletions(value, without, level=0.95, counts=None):
    """The interval of `jackknife` from what `deletions` returns; counts: {cell: m_c} from `used`, None where every run is."""
    from scipy.special import stdtrit

    variance, spread, size = np.zeros((3, *np.shape(value)))
    for cell, values in without.items():
        n, m = len(values), len(values) if counts is None else counts[cell]
        v = (n - 1) / n * ((values - values.mean(0)) ** 2).sum(0)
        variance, spread = variance + v, spread + v**2 / max(m - 1, 1)
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


METHODS = ("profile", "jackknife", "percentile", "bca")


def interval(found, quantity, level=0.95, method=None, clusters=None, count=4000, seed=0):
    """The interval of a parameter of a fitted law, or of anything computed from its parameters.

    Args:
      found: a Fit. quantity: a parameter's name, or a function of {name: value or array}: `lambda p: compute_optimal(p, 1e24)[0]`.
      method: "profile" (profile.py; rows independent), "jackknife" (leaves out one row or cluster at a time, t with one degree of
        freedom less than there are; of single rows not with Huber's loss, whose minimum a row too many moves in jumps), "percentile" or
        "bca" (resample.bootstrap with `count` and `seed`). None: profile, or jackknife where clusters are given. How often each covers at which n: benchmarks/coverage.py.
      clusters: label of each row's cluster, [n] in the order of the data, such as its seed where rows share one; None: those of the fit.
    Raises:
      NotTestable: no degree of freedom, or the points do not determine the parameters.
    """
    return several(found, [quantity], level, method, clusters, count, seed)[0]


def several(found, quantities, level=0.95, method=None, clusters=None, count=4000, seed=0):
    """`interval` of each of these quantities, from one batch of profiles or one set of refits: a list of Interval."""
    from scaling_jax.laws import profile, resample

    answerable(found)
    clusters = found.points.clusters if clusters is None else np.asarray(clusters)[found.points.rows]
    method = method or ("profile" if clusters is None else "jackknife")
    if method not in METHODS:
        raise ValueError(f"method = {method!r}: expected one of {', '.join(METHODS)}")
    if method == "profile" and clusters is not None:
        raise ValueError("method = 'profile' takes every row as independent; with clusters use jackknife, percentile or bca")
    params = {name: np.asarray(value) for name, value in found.params.items()}
    for one in quantities:
        if isinstance(one, str) and one not in params:
            raise ValueError(f"quantity = {one!r}: {found.form.name} has the parameters {', '.join(params)}")
    values = [float(params[one] if isinstance(one, str) else one(params)) for one in quantities]
    if method == "profile":
        low, high, se, dof = profile.profiles(found, quantities, level)
        return [Interval(value, *map(float, ends), dof, method) for value, *ends in zip(values, low, high, se, strict=True)]
    left_out = None if method == "percentile" else resample.deletions(found, clusters)
    if method == "jackknife":
        factors = profile.logarithmic(found, quantities)
        return [_delete_one(found, *one, level, left_out) for one in zip(quantities, values, factors, strict=True)]
    drawn, out = resample.bootstrap(found, count, seed, clusters), []
    for one, value in zip(quantities, values, strict=True):
        draws = drawn.of(one)
        low, high = quantiles(draws, value, level, None if left_out is None else _of(left_out, one), drawn.groups)
        se = float(np.std(draws, ddof=1)) if np.isfinite(draws).all() else float("inf")
        out.append(Interval(value, low, high, se, len(draws) - 1, method))
    return out


def answerable(found):
    """Raises where a fit can have no interval: ValueError without its points, NotTestable where they do not determine its parameters."""
    if found.points is None:
        raise ValueError("this fit has no points to rest an interval on; fit again, or keep them in fit.json")
    if not found.identified:
        raise NotTestable(f"no interval: {next((one for one in found.warnings if 'apart' in one), found.warnings[0])}")


def _tail(level, groups):
    """The share of draws left out on either side, so that the interval of a mean of so many has the width of its t interval."""
    from scipy.special import ndtr, stdtrit

    return float(ndtr(np.sqrt(groups / (groups - 1)) * stdtrit(groups - 1, (1 - level) / 2)))


def quantiles(draws, value, level, left_out=None, groups=None):
    """The percentile interval of bootstrap draws, or BCa where the delete-one values are given.

    With `groups`, the number of rows or clusters drawn, the tails are those of an expanded interval: a resample varies less than a
    sample by sqrt((n - 1) / n), and normal quantiles stand where t has to, so that at 12 points a 95% interval would cover 88%. BCa
    moves the two quantiles by the bias z_0 = Phi^-1(#{draw < value} / B) and the acceleration a = sum d^3 / (6 (sum d^2)^(3/2)),
    d = mean - delete-one values. Source: Efron 1987; Hesterberg 2015 (arXiv:1411.5279), section on expanded intervals.
    """
    from scipy.special import ndtr, ndtri

    share = (1 - level) / 2 if groups is None else _tail(level, groups)
    tail = np.array([share, 1 - share])
    if left_out is not None:
        if not np.isfinite(left_out).all():
            raise NotTestable("no BCa interval: without one row or cluster the quantity is no finite number")
        below = np.clip(((draws < value).sum() + 0.5 * (draws == value).sum()) / len(draws), 0.5 / len(draws), 1 - 0.5 / len(draws))
        d = left_out.mean() - left_out
        power = (d**2).sum() ** 1.5
        bias, acceleration = ndtri(below), (d**3).sum() / (6 * power) if power else 0.0
        z = bias + ndtri(tail)
        tail = ndtr(bias + z / (1 - acceleration * z))
    if np.isnan(draws).any():
        raise NotTestable(f"the quantity is no number in {np.isnan(draws).mean():.1%} of the resamples")
    if np.isinf(draws).any():  # nothing lies between a number and infinity: the draw beyond the quantile stands for it
        return float(np.quantile(draws, tail[0], method="lower")), float(np.quantile(draws, tail[1], method="higher"))
    low, high = np.quantile(draws, tail)
    return float(low), float(high)


def _of(samples, quantity):
    return samples[quantity] if isinstance(quantity, str) else np.asarray(quantity(samples), np.float64)


def _delete_one(found, quantity, value, factor, level, left_out):
    """The t interval of delete-one values; of their logarithms where errors are factors, or a size of 400 +- 300 would reach below zero."""
    from scipy.special import stdtrit

    values = _of(left_out, quantity)
    groups = len(values)
    if not np.isfinite(values).all():
        raise NotTestable("no jackknife: without one row or cluster the quantity is no finite number; use the profile")
    se = _jackknife_error(values)
    t = float(stdtrit(groups - 1, 0.5 + level / 2))
    if factor and (values > 0).all():
        half = t * _jackknife_error(np.log(values))
        low, high = value * np.exp(-half), value * np.exp(half)
    else:
        low, high = value - t * se, value + t * se
    bounds = found.form.bounds[quantity] if isinstance(quantity, str) else (-np.inf, np.inf)
    return Interval(value, float(max(low, bounds[0])), float(min(high, bounds[1])), se, groups - 1, "jackknife")


def _jackknife_error(values):
    return float(np.sqrt((len(values) - 1) / len(values) * ((values - values.mean()) ** 2).sum()))


def band(found, columns, level=0.95, kind="law"):
    """The band of a fitted law at these inputs: of the law itself, or of one new run there.

    For a run: the half widths on the scale of the residuals are sqrt(h_law^2 + h_noise^2), with h_noise = t s for least squares and
    the wider of t s_robust and the residuals' own quantiles, side by side, for Huber's loss: of few residuals the quantiles are too
    narrow, and of wild ones t s is. Where points have weights, the new run is one of their mean variance.

    Both bands take the law as true. Beyond the fitted compute of Chinchilla's figure 4 published runs lay within 95% bands of independent
    rows 76% of the time, within those of budgets (clusters: leaving out one budget of compute at a time shows how far the law itself is
    off) 96% (benchmarks/results/law_extrapolation_2026-11-24.json).

    Args:
      columns: the law's inputs, name -> array [m] or number. kind: "law" or "run".
    Returns:
      Interval of arrays [m].
    """

    from scaling_jax.laws.fitting import problem

    if kind not in ("law", "run"):
        raise ValueError(f"kind = {kind!r}: expected 'law' or 'run'")
    if missing := [name for name in found.form.inputs if name not in columns]:
        raise ValueError(f"{missing[0]} is missing; {found.form.name} needs {', '.join(found.form.inputs)}")
    inputs = {name: np.atleast_1d(np.asarray(columns[name], np.float64)) for name in found.form.inputs}
    task = problem(found)
    count = len(next(iter(inputs.values())))
    answerable(found)
    laws = [law_at(found.form, {name: values[j : j + 1] for name, values in inputs.items()}) for j in range(count)]
    parts = several(found, laws, level)
    low, high, se, dof = (np.array([getattr(part, name) for part in parts]) for name in ("low", "high", "se", "dof"))
    value = found.predict(inputs)
    if kind == "run":
        tails = new_run(found, level)[:2]
        centre = task.link(value)
        widths = [np.hypot(centre - task.link(low), tails[0]), np.hypot(task.link(high) - centre, tails[1])]
        low, high = (_unlink(found, side) for side in (centre - widths[0], centre + widths[1]))
    return Interval(value, low, high, se, dof, parts[0].method)


def new_run(found, level=0.95):
    """How far one new run lies from the law on the scale of the residuals: (below, above, s, dof), below <= -t s and t s <= above.

    s is its standard deviation, the root of the mean variance s_i^2 = s_0^2 / w_i of the points where they have weights. With Huber's loss s
    is robust and the ends are the residuals' own quantiles where those are wider. Of a fit with clusters s^2 is the variance between
    clusters plus that within, with Satterthwaite's degrees of freedom.
    """
    from scipy.special import stdtrit

    from scaling_jax.laws import profile

    w, labels = found.points.weights, found.points.clusters
    residual = found.residuals() * np.sqrt(w * (1 / w).mean())  # as if all had the mean variance
    freedom = dof = found.n - len(found.free)
    s = np.sqrt((residual**2).sum() / freedom) if found.loss != "huber" else profile.spread(residual, freedom)
    if labels is not None:
        _, label, size = np.unique(labels, return_inverse=True, return_counts=True)
        mean, groups = np.bincount(label, residual) / size, len(size)
        within = float(((residual - mean[label]) ** 2).sum())
        parts = np.array(
            [float((mean**2).sum()) / (groups - 1), (1 - groups / found.n) * within / max(found.n - groups - len(found.free), 1)]
        )
        dof = parts.sum() ** 2 / (parts**2 / [groups - 1, max(found.n - groups - len(found.free), 1)]).sum()
        s = max(np.sqrt(parts.sum()), s) if found.loss != "huber" else s
    half = float(stdtrit(dof, 0.5 + level / 2)) * s
    if found.loss != "huber":
        return -half, half, s, dof
    # of two neighbours the inner one: between them lies no run that was seen, and the outer may be a wild one by itself
    low = np.quantile(residual, (1 - level) / 2, method="higher") * np.sqrt(found.n / freedom)
    high = np.quantile(residual, (1 + level) / 2, method="lower") * np.sqrt(found.n / freedom)
    return min(low, -half), max(high, half), s, dof


def law_at(form, columns):
    """The law at one point, as a function of its parameters."""
    return lambda p: np.reshape(form.function(p, columns), np.shape(next(iter(p.values()))))


def _unlink(found, values):
    """The inverse of the residuals' scale."""
    if found.form.link is None:
        return values if found.loss == "lsq" else np.exp(values)
    raise ValueError(f"{found.form.name} has a link of its own: ask for kind='law'")
