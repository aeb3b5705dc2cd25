"""How many seeds a claim needs: exactly for a contrast with a t interval, by simulation for a claim that rests on a fit or on a null test.

A claim is a function (n, count, rng) -> bool [count]: in which of `count` simulated worlds with n seeds per cell it holds.
`seeds_for_power` finds the smallest n at which it holds often enough; `fit_claim` and `cells_claim` make such functions.
Every simulated world is judged by the interval and the test that real data would be judged by.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from scaling_jax.laws import intervals, profile, solve, statistics
from scaling_jax.laws.fitting import DELTA, Fit, problem
from scaling_jax.laws.form import NotTestable, as_form
from scaling_jax.laws.points import Points
from scaling_jax.records import ConfigError

ALPHA = 0.05
PERMUTATIONS = 1000
METHODS = ("profile", "jackknife")
NORMAL_IQR = 1.349  # interquartile range of a standard normal
STIFF = 10.0  # of the spring that pulls a quantity to the threshold: it goes 99% of the way, the rest is drawn out
GREY = 0.003  # of t: closer than this to it, tau is not trusted to be on one side


@dataclass(frozen=True)
class Seeds:
    """seeds: the smallest number per cell that gives the power asked for, or None. power: what it gives, or the most tried gave.

    low, high: 95% Clopper-Pearson interval of that power over `count` simulated worlds; both are `power` where it was computed, count 0.
    tried: seeds -> power. reason: why none is enough.
    """

    seeds: int | None
    power: float
    low: float
    high: float
    count: int
    tried: Mapping = field(default_factory=dict)
    reason: str = ""


def seeds_for_power(claim, power=0.8, count=400, seed=0, least=1, most=64, relabelings=None, claims=1, permutations=PERMUTATIONS):
    """The smallest number of seeds per cell at which `claim` holds in a share `power` of simulated worlds: doubled, then halved in on.

    Its Monte-Carlo error is that of a share of `count` worlds, 2 points at 80% and 400; a neighbouring n may be as good.

    Args:
      claim: (n, count, rng) -> bool [count]. least, most: seeds per cell looked at.
      relabelings: n -> number of distinct relabelings of its null test, such as `lambda n: math.comb(2 * n, n)`; an n whose smallest
        possible p, 1 / min(relabelings, permutations + 1), is not below 0.05 / claims gives no power and is passed over. None: no test.
      claims: size of the family that Holm adjusts over; 0.05 / claims is what it asks of the smallest p among them.
    Returns:
      Seeds.
    """
    _check(power=power, count=count, least=least, most=most, claims=claims)
    if most < least:
        raise ConfigError(f"most = {most}: below least = {least}")
    possible = [n for n in range(least, most + 1) if _testable(n, relabelings, claims, permutations)]
    if not possible:
        reason = f"up to {most} seeds per cell no p below {ALPHA / claims:.3g} is possible"
        return Seeds(None, 0.0, 0.0, 0.0, 0, {most: 0.0}, reason)
    tried = {}

    def enough(n):
        if n not in tried:
            tried[n] = int(np.count_nonzero(claim(n, count, np.random.default_rng([seed, n]))))
        return tried[n] >= power * count

    low, high = least - 1, possible[0]
    while not enough(high) and high < most:
        low, high = high, min(2 * high, most)
    if enough(high):
        low = max(low, possible[0] - 1)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
    held, reached = tried[high], enough(high)
    ends = clopper_pearson(held, count)
    shares = {n: tried[n] / count for n in sorted(tried)}
    reason = "" if reached else f"{high} seeds per cell, the most looked at, give a power of {held / count:.2f}, not {power:g}"
    return Seeds(high if reached else None, held / count, *ends, count, shares, reason)


def contrast_power(effect, se, dof, level=0.95, claims=None):
    """The chance that a t interval lies beyond the threshold, on the right side: P(t'_dof(effect / se) > t_(dof, (1 + level) / 2)).

    With `claims` the one-sided null test has to reach p < 0.05 / claims as well, taken as a t test, which permutation tests of means
    come to (Hoeffding 1952). Arrays broadcast. effect: true distance from the threshold; se, dof: of the contrast.
    Source: the noncentral t distribution t'.
    """
    from scipy.special import nctdtr, stdtrit

    quantile = (1 + level) / 2 if claims is None else max((1 + level) / 2, 1 - ALPHA / claims)
    return 1 - nctdtr(dof, np.abs(effect) / np.asarray(se, np.float64), stdtrit(dof, quantile))


def seeds_for_contrast(effect, se, dof, seeds, power=0.8, level=0.95, relabelings=None, claims=1, permutations=PERMUTATIONS):
    """The smallest number of seeds per cell at which a contrast measured with `seeds` seeds per cell has this power, exactly.

    At n seeds: se sqrt(seeds / n) with dof (n - 1) / (seeds - 1) degrees of freedom. `statistics.seeds_for_interval` is the quick form
    that verdicts print, which looks only beyond the seeds there are and adds two t quantiles instead of the noncentral t.

    Args:
      effect: distance from the threshold that is to be seen. se, dof: measured, of the contrast (a jackknife's or Welch's).
      relabelings, claims, permutations: as `seeds_for_power`; None: a claim without a null test.
    """
    _check(power=power, claims=claims, seeds=seeds)
    if not (math.isfinite(effect) and effect and se > 0 and dof > 0):
        raise ConfigError(f"effect = {effect}, se = {se}, dof = {dof}: expected an effect other than zero, se and dof above zero")
    if seeds < 2:
        raise ConfigError(f"seeds = {seeds}: an se measured with one seed per cell has no degree of freedom; run two or more")
    n = np.arange(2, statistics.MOST_SEEDS + 1)
    at = contrast_power(effect, se * np.sqrt(seeds / n), dof * (n - 1) / (seeds - 1), level, None if relabelings is None else claims)
    at = np.where([_testable(int(one), relabelings, claims, permutations) for one in n], at, 0.0)
    first = int((at >= power).argmax()) if (at >= power).any() else len(n) - 1
    share, reached = float(at[first]), bool(at[first] >= power)
    tried = {int(n[i]): float(at[i]) for i in (first - 1, first) if i >= 0}
    reason = "" if reached else f"{n[first]} seeds per cell, the most looked at, give a power of {share:.2f}, not {power:g}"
    return Seeds(int(n[first]) if reached else None, share, share, share, 0, tried, reason)


def cells_claim(effect, sd, within_seed=False, shared=0.0, level=0.95, claims=1, permutations=PERMUTATIONS):
    """The claim that one cell's mean lies above another's: jackknife interval above zero, and Holm-adjusted permutation p < 0.05.

    Values are normal. The permutation test is exact where there are no more relabelings than `permutations`, else drawn.

    Args:
      effect: true difference of the means. sd: of one run, [2] or a number.
      within_seed: whether the two runs of one seed are exchanged (2^n relabelings) instead of any (2n over n).
      shared: correlation of the two runs of one seed, as from data they share.
      claims: the p needed is 0.05 / claims, what Holm asks of the smallest; claims beside it that are true too make it easier.
    Returns:
      A claim for `seeds_for_power`.
    """
    sd = np.broadcast_to(np.asarray(sd, np.float64), (2,))
    if not (sd > 0).all() or not -1 < shared < 1:
        raise ConfigError(f"sd = {sd.tolist()}, shared = {shared}: expected sd above zero and a correlation within (-1, 1)")
    _check(claims=claims)

    def holds(n, count, rng):
        if n < 2:
            return np.zeros(count, bool)
        a, b = rng.standard_normal((2, n, count))
        a, b = effect + sd[0] * (shared * b + math.sqrt(1 - shared**2) * a), sd[1] * b
        without = [(x.sum(0) - x) / (n - 1) for x in (a, b)]
        value = a.mean(0) - b.mean(0)
        found = intervals.from_deletions(value, {"a": without[0] - b.mean(0), "b": a.mean(0) - without[1]}, level)
        beyond = found.low > 0
        signs = _relabelings(n, within_seed, permutations, rng)  # [R, 2n]
        both = np.concatenate([a, b])[:, beyond].T
        p = [statistics.exact_p(one, draws, ">") for one, draws in zip(value[beyond].tolist(), both @ signs.T / n, strict=True)]
        beyond[beyond] = np.array(p) * claims < ALPHA
        return beyond

    return holds


def _relabelings(n, within_seed, permutations, rng):
    """Signs [R, 2n] of the runs in the difference of means, each row one relabelling, the first as observed; all where few, else drawn."""
    observed = np.repeat([1.0, -1.0], n)
    if within_seed:
        if 2**n <= permutations:
            flips = np.array(list(itertools.product([1.0, -1.0], repeat=n)))
        else:
            flips = np.concatenate([np.ones((1, n)), rng.choice([1.0, -1.0], (permutations, n))])
        return np.tile(flips, 2) * observed
    if math.comb(2 * n, n) <= permutations:
        chosen = list(itertools.combinations(range(2 * n), n))
        signs = -np.ones((len(chosen), 2 * n))
        np.put_along_axis(signs, np.array(chosen), 1.0, 1)
        return signs
    return np.concatenate([observed[None], rng.permuted(np.tile(observed, (permutations, 1)), axis=1)])


def fit_claim(planted, design, noise, quantity, threshold, side, method="profile", level=0.95):
    """The claim that a quantity of a fitted law lies on `side` of `threshold`: its interval wholly beyond it.

    Each world draws the planted law with noise at every point of the design, n seeds each, fits it from the planted parameters on, and
    makes the interval. By profile the question is whether tau at the threshold exceeds t (profile.py), answered for all worlds at once;
    where that is not clear, and by jackknife always, intervals.interval answers. The claim's null test is no part of it, only its smallest
    possible p, by `relabelings` of `seeds_for_power`.

    Args:
      planted: a Fit, or (law, {parameter: value}). design: the law's inputs, name -> [cells], one row per cell.
      noise: of one run on the scale of the residuals (of ln y where the loss is of logarithms): its standard deviation, normal; or an
        array of residuals to draw from; None: the Fit's own residuals, widened by sqrt(n / (n - p)).
      quantity: as intervals.interval takes. method: "profile" or "jackknife".
    Returns:
      A claim for `seeds_for_power`.
    Raises:
      ConfigError. NotTestable: the design has too few distinct inputs for the law.
    """
    if side not in (">", "<"):
        raise ConfigError(f"side = {side!r}: expected '>' or '<'")
    if method not in METHODS:
        raise ConfigError(f"method = {method!r}: expected one of {', '.join(METHODS)}")
    if not math.isfinite(threshold):
        raise ConfigError(f"threshold = {threshold!r}: expected a finite number")
    base = _planted(planted, design)
    draw = _noise(planted, base, noise)
    sign = 1.0 if side == ">" else -1.0
    profile.of(problem(base), quantity)  # refuses an unknown name

    def holds(n, count, rng):
        tiled = {name: np.tile(values, n) for name, values in base.points.columns.items()}
        cells = len(base.points)
        points = Points(tiled, base.form.predict(base.params, tiled), np.ones(n * cells), np.arange(n * cells))
        task = replace(profile.straight(base), points=points)
        freedom = len(points) - int(task.free.sum())
        if freedom < 1:
            return np.zeros(count, bool)
        noises = draw((count, len(points)), rng)
        x, cost = _fit_worlds(base, task, noises)
        q = profile.of(task, quantity)
        value = q(x)
        right = np.isfinite(value) & np.isfinite(cost) & (sign * (value - threshold) > 0)
        held, unclear = np.zeros(count, bool), right.copy()
        if method == "profile" and right.any():
            held[right], unclear[right] = _beyond(task, noises[right], x[right], q, threshold, freedom, level)
        for i in np.flatnonzero(unclear):
            held[i] = _by_interval(base, _world(task, noises[i]), x[i], quantity, threshold, sign, method, level)
        return held

    return holds


def _planted(planted, design):
    """A Fit with the planted parameters at the points of the design, one seed each."""
    if isinstance(planted, Fit):
        form, params, loss, delta, fixed = planted.form, planted.params, planted.loss, planted.delta, planted.fixed
    else:
        form, params = as_form(planted[0]), dict(planted[1])
        loss, fixed = form.loss, {}
        delta = DELTA if loss == "huber" else np.inf
    if set(params) != set(form.params):
        raise ConfigError(f"planted: parameters {', '.join(params)}; {form.name} has {', '.join(form.params)}")
    if form.link is not None:
        raise ConfigError(f"planted: {form.name} has a link of its own, whose inverse is not known; simulate it yourself")
    for name in form.inputs:
        if name not in design:
            raise ConfigError(f"design: no column {name!r}; {form.name} has the inputs {', '.join(form.inputs)}")
    columns = {name: np.atleast_1d(np.asarray(design[name], np.float64)) for name in form.inputs}
    if len({values.shape for values in columns.values()}) > 1 or not all(np.isfinite(values).all() for values in columns.values()):
        raise ConfigError("design: expected finite columns of one length")
    distinct = len(set(zip(*(values.tolist() for values in columns.values()), strict=True)))
    free = len(form.params) - len(fixed)
    if distinct <= free:
        raise NotTestable(f"design: {form.name} has {free} free parameters and there are {distinct} distinct inputs; needs {free + 1}")
    y, first = form.predict(params, columns), columns[form.inputs[0]]
    if not np.isfinite(y).all() or (loss != "lsq" and (y <= 0).any()):
        raise ConfigError(f"design: the planted law is {y.min():g} to {y.max():g} there, where a fit takes finite numbers")
    points = Points(columns, y, np.ones(len(y)), np.arange(len(y)))
    span = (float(first.min()), float(first.max()))
    return Fit(form, dict(params), 0.0, len(y), distinct, np.nan, span, loss=loss, delta=delta, fixed=fixed, points=points)


def _noise(planted, base, noise):
    """(shape, rng) -> what is added to link(law)."""
    if noise is None:
        if not isinstance(planted, Fit) or planted.points is None:
            raise ConfigError("noise = None: only a Fit with its points has residuals; give a standard deviation")
        residual = planted.residuals() * np.sqrt(planted.n / max(planted.n - len(planted.free), 1))
        return lambda shape, rng: rng.choice(residual, shape)
    noise = np.asarray(noise, np.float64)
    if not np.isfinite(noise).all() or noise.size == 0 or (noise.ndim == 0 and noise <= 0) or noise.ndim > 1:
        raise ConfigError(f"noise = {noise}: expected a standard deviation above zero, or residuals [r]")
    if noise.ndim:
        return lambda shape, rng: rng.choice(noise, shape)
    return lambda shape, rng: noise * rng.standard_normal(shape)


def _fit_worlds(base, task, noises):
    """The fits of all worlds from the planted law on: x [B, p] and the objective [B], infinite where a search did not end."""

    def residual(x, which):
        r, slopes = task.residual(x)
        return r - noises[which], slopes

    low, high = task.box
    start = np.clip(task.encode(np.array([[base.params[name] for name in task.form.params]])), low, high)
    start = np.repeat(start, len(noises), 0)
    solved = solve.minimise(residual, start, low, high, task.points.weights, task.delta, task.free, steps=1000)
    return solved.x, np.where(solved.converged, solved.objective, np.inf)


def _world(task, noise):
    """The problem of one world: the planted law with this noise."""
    y = task.points.target
    return replace(task, points=replace(task.points, target=y + noise if task.loss == "lsq" else y * np.exp(noise)))


def _beyond(task, noises, x, q, threshold, freedom, level):
    """In which worlds tau at the threshold exceeds t [B], and where that is not clear [B].

    As in profile.py a spring pulls q from the fit x [B, p] towards the threshold; what it falls short by, tau is drawn out for.
    """
    from scipy.special import stdtrit

    value = q(x)
    quartiles = np.quantile(value, [0.25, 0.75])
    se = float(np.diff(quartiles)[0]) / NORMAL_IQR
    if not np.isfinite(se) or se <= 0:
        return np.zeros(len(x), bool), np.ones(len(x), bool)
    own = [_world(task, one) for one in noises]
    s2 = np.array([profile.scale(one, at[None], freedom)[0] for one, at in zip(own, x, strict=True)])
    stiff = STIFF * np.sqrt(s2) / se
    low, high = task.box
    count = len(task.points)
    weights, delta = np.append(task.points.weights, 1.0), np.append(np.full(count, task.delta), np.inf)

    def residual(x, which):
        r, slopes = task.residual(x)
        extra = stiff[which] * (q(x) - threshold)
        pull = stiff[which][:, None] * profile.gradient(q, x, task)
        return np.concatenate([r - noises[which], extra[:, None]], 1), np.concatenate([slopes, pull[:, None, :]], 1)

    def cost(at):
        return 2 * (task.points.weights * solve.rho(task.residual(at)[0] - noises, task.delta)).sum(1)

    pulled = solve.minimise(residual, x, low, high, weights, delta, task.free, tolerance=1e-10, steps=300)
    with np.errstate(all="ignore"):
        tau = np.sqrt(np.maximum(cost(pulled.x) - cost(x), 0.0) / s2)
        way = (q(pulled.x) - value) / (threshold - value)  # how much of the way the spring went
        tau = np.where(way < 1, tau / way, tau)
        critical = stdtrit(freedom, 0.5 + level / 2)
        unclear = ~(np.isfinite(tau) & pulled.converged & (way > 0.8) & (np.abs(tau - critical) > GREY * critical))
    return tau > critical, unclear


def _by_interval(base, world, x, quantity, threshold, sign, method, level):
    """Whether the interval that a user would get lies beyond the threshold."""
    found = replace(base, params=world.named(x), n=len(world.points), points=world.points)
    try:
        ends = intervals.interval(found, quantity, level, method=method)
    except NotTestable:
        return False
    return (ends.low > threshold) if sign > 0 else (ends.high < threshold)


def clopper_pearson(hits, count, level=0.95):
    """The exact interval of a share from `hits` of `count`: it covers at least `level` of the time. Source: Clopper and Pearson 1934."""
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = float(betaincinv(hits, count - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - tail)) if hits < count else 1.0
    return low, high


def _testable(n, relabelings, claims, permutations):
    """Whether n seeds can give a p below what Holm asks of the smallest."""
    return relabelings is None or 1 / min(relabelings(n), permutations + 1) < ALPHA / claims


def _check(power=0.8, **counts):
    if not 0 < power < 1:
        raise ConfigError(f"power = {power!r}: expected a share between 0 and 1, such as 0.8")
    for name, value in counts.items():
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ConfigError(f"{name} = {value!r}: expected a whole number, one or more")
