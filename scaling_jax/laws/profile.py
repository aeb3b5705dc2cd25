"""Profile intervals: how far a parameter, or anything computed from the parameters, can move before the fit gets visibly worse.

    tau^2(q_0) = (min_{theta: q(theta) = q_0} S(theta) - S(theta_hat)) / s^2,    interval: tau(q_0) <= t_{n - p, (1 + level) / 2}

S is the sum of squares, s^2 = S(theta_hat) / (n - p). No step of it assumes that the parameters are normal or the law is linear in
them, and it does not change when a parameter is replaced by its logarithm. With Huber's loss S is twice that and s^2 becomes
sum psi^2 / (n - p) / mean psi', the robust likelihood ratio. An end that the data do not bound is the end of the parameter's range,
or infinite. Source: Bates and Watts 1988, chapter 6; Ronchetti 1982 for the robust form.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scaling_jax.laws import solve
from scaling_jax.laws.fitting import problem
from scaling_jax.laws.form import NotTestable
from scaling_jax.laws.points import Problem

SPRING, STIFF = 10.0, 1e4  # stiffness of a spring at first and at most, in units of tau per move: see _pulled
ROUNDS = 60  # steps outwards before an end counts as not bounded
CLOSE = 5e-3  # of the threshold: how near tau must come before the rest is interpolated
WINDOW = 1.5  # of slope_of_psi, in standard deviations at one point
FAR, FAR_LOG = 1e5, np.log(1e9)  # moves after which an end counts as infinite: in standard errors, in logarithms
FAILS, STALLS = 12, 3  # halvings of a step that found no minimum; steps that led nowhere


def profile(found, quantity, level=0.95):
    """The interval (low, high) of `quantity` at `level`, its standard error in the middle, from the curvature, and n - p.

    Args:
      quantity: a parameter's name, or a function from {name: value or array} to a number or an array of that shape.
    Raises:
      NotTestable: the points do not determine the parameters.
    """
    low, high, se, freedom = profiles(found, [quantity], level)
    return float(low[0]), float(high[0]), float(se[0]), freedom


def profiles(found, quantities, level=0.95):
    """`profile` of Q quantities, all walked outwards in one batch: low [Q], high [Q], standard errors [Q], n - p.

    The band of a law at many inputs is as many quantities; together they take little longer than one.
    """
    from scipy.special import stdtrit

    task, x, s2, freedom, axes = _axes(found, quantities)
    threshold = float(stdtrit(freedom, 0.5 + level / 2))
    sides = [_side(axis, sign, x[0], threshold) for axis in axes for sign in (-1.0, 1.0)]
    _walk(task, sides, x, s2, threshold)
    ends = np.array([_value(side.axis, side.end) for side in sides])
    return ends[0::2], ends[1::2], np.array([axis.se for axis in axes]), freedom


def logarithmic(found, quantities):
    """Which of these quantities are sizes known to a fifth or worse, whose errors are factors: above zero whatever the parameters, [Q] bool."""
    return [axis.logarithmic for axis in _axes(found, quantities)[-1]]


def _axes(found, quantities):
    """The problem, the fit in its coordinates [1, p], s^2, n - p, and an _Axis of each quantity."""
    task = straight(found)
    freedom = found.n - int(task.free.sum())
    if freedom < 1:
        raise NotTestable(f"no interval: {found.n} points and {len(found.free)} free parameters leave no degree of freedom")
    x = np.clip(task.encode(np.array([[found.params[name] for name in task.form.params]])), *task.box)
    s2, hessian = scale(task, x, freedom)
    # what sits at a bound moves inwards only: it counts in the search, not in the curvature
    low, high = task.box
    inside = task.free & (x[0] > low) & (x[0] < high)
    covariance = np.zeros_like(hessian)
    covariance[np.ix_(inside, inside)] = s2 * np.linalg.pinv(hessian[np.ix_(inside, inside)], rcond=1e-14, hermitian=True)
    return task, x, s2, freedom, [_axis(task, x, covariance, quantity) for quantity in quantities]


@dataclass(frozen=True)
class Straight(Problem):
    """A Problem in which the parameters `as_are` are searched as they are, so that they can reach zero and leave it again."""

    as_are: tuple = ()

    @cached_property
    def logarithmic(self):
        return super().logarithmic & [name not in self.as_are for name in self.form.params]


def straight(found):
    """The problem of a fit with its offsets, and every scale that sits at zero, not by their logarithm: that has no slope at zero."""
    task = problem(found)
    x = np.array([[found.params[name] for name in task.form.params]])
    _, slopes = task.form.derivatives(x, task.points.columns)
    offset = (slopes[0] == slopes[0][:1]).all(0) & (slopes[0][0] != 0)
    names = tuple(name for name, one in zip(task.form.params, offset | (x[0] == 0), strict=True) if one)
    return Straight(task.form, task.points, task.loss, task.delta, task.fixed, names)


def of(task, quantity):
    """`quantity` as a function of the search's coordinates, x [B, p] -> [B]."""
    names = task.form.params
    if isinstance(quantity, str):
        if quantity not in names:
            raise ValueError(f"quantity = {quantity!r}: {task.form.name} has the parameters {', '.join(names)}")
        at = names.index(quantity)
        return lambda x: task.decode(x)[:, at]

    def compute(x):
        values = task.decode(x)
        with np.errstate(all="ignore"):
            return np.asarray(quantity({name: values[:, i] for i, name in enumerate(names)}), np.float64).reshape(len(x))

    return compute


def gradient(q, x, task):
    """dq/dx [B, p] of the coordinates that are free, by central differences, one-sided at the ends of the box."""
    return _with_gradient(q, x, task)[1]


def _with_gradient(q, x, task):
    """q(x) [B] and its `gradient`, by one call of q."""
    moves, (low, high) = np.flatnonzero(task.free), task.box
    step = np.diag(1e-6 * np.maximum(1.0, np.abs(x).max(0) * 1e-2))[moves, None]
    above, below = np.minimum(x + step, high), np.maximum(x - step, low)  # [moves, B, p]
    values = q(np.concatenate([x[None], above, below]).reshape(-1, x.shape[1])).reshape(1 + 2 * len(moves), len(x))
    out = np.zeros_like(x)
    out[:, moves] = ((values[1 : 1 + len(moves)] - values[1 + len(moves) :]) / (above - below)[np.arange(len(moves)), :, moves]).T
    return values[0], out


def scale(task, x, freedom):
    """(s^2, H): the noise level that twice the objective is measured in, and J' w J in units where 2 F = r' H r."""
    r, slopes = task.residual(x)
    r, slopes, w = r[0], slopes[0], task.points.weights
    if np.isinf(task.delta):
        return float((w * r * r).sum()) / freedom, (slopes * w[:, None]).T @ slopes
    psi = np.clip(r, -task.delta, task.delta)
    curvature = slope_of_psi(r, w, task.delta, len(r) - freedom)
    return float((w * psi * psi).sum()) / freedom / curvature, curvature * (slopes * w[:, None]).T @ slopes


def slope_of_psi(r, w, delta, fitted=0):
    """Mean of psi' over the noise, its share within delta, from residuals [n] of a law of `fitted` free parameters.

    For a window h it is the mean of (psi(r + h) - psi(r - h)) / (2 h), the slope of the mean of psi when all residuals shift together. The
    window is wide enough to hold a good share of the residuals at any n, and what its width distorts is put right by the ratio that normal
    noise would have. As many residuals as there are parameters are left out, the smallest: where delta is small the law goes through so
    many points, and they say nothing about the noise. Counting them makes intervals cover 87% at 16 points of the Chinchilla law.
    """
    from scipy.special import ndtr

    kept = np.argsort(np.abs(r), kind="stable")[min(fitted, len(r) - 1) :]
    r, w = r[kept], w[kept]
    sigma = max(float(np.median(np.abs(r))) / 0.6745, 1e-3 * delta)
    window = max(delta, WINDOW * sigma * len(r) ** -0.2)
    seen = float((w * (np.clip(r + window, -delta, delta) - np.clip(r - window, -delta, delta))).sum() / w.sum()) / 2
    normal = _mean_of_psi(window / sigma, delta / sigma) * sigma
    inside = 2 * ndtr(delta / sigma) - 1
    return seen / normal * inside or inside


def _mean_of_psi(shift, delta):
    """The mean of psi(z + shift) for standard normal z, psi clipped at delta: the integral of P(z + shift > t) from -delta to delta, less delta."""
    from scipy.special import ndtr

    area = lambda a: a * ndtr(a) + np.exp(-a * a / 2) / np.sqrt(2 * np.pi)
    return area(shift + delta) - area(shift - delta) - delta


def spread(r, freedom):
    """A standard deviation of residuals [n] that a few wild ones move little: sum min(r^2 / s^2, c^2) = freedom E min(z^2, c^2), c = 1.5.

    Source: Huber 1981, section 6.4, proposal 2.
    """
    from scipy.special import ndtr

    c = 1.5
    share = (2 * ndtr(c) - 1) - 2 * c * np.exp(-c * c / 2) / np.sqrt(2 * np.pi) + 2 * c * c * ndtr(-c)
    s2 = float((r * r).sum()) / freedom
    for _ in range(100):
        s2 = float(np.minimum(r * r, c * c * s2).sum()) / (freedom * share)
    return float(np.sqrt(s2))


@dataclass(frozen=True)
class _Axis:
    """A quantity as it is walked: u(x) is q itself or its logarithm, `start` where the fit has it, `unit` its standard error there.

    path: dx/du along which the fit gets worse slowest. low, high: ends of u's range. far: moves that count as infinite. own: of a parameter
    its place among the coordinates.
    """

    q: Callable
    own: int | None
    logarithmic: bool
    se: float
    start: float
    unit: float
    path: np.ndarray
    low: float
    high: float
    far: float


@dataclass
class _Side:
    """How far one end of one quantity has been walked.

    at, tau, here: u, tau and x of the farthest point below the threshold. beyond, above, there: those of the nearest one above it, None
    so far. slope, path: of tau and x by u, last seen. ask: how far from the start the next point is wanted. end: u of the end, once known.
    """

    axis: _Axis
    sign: float
    at: float
    here: np.ndarray
    slope: float
    path: np.ndarray
    ask: float
    tau: float = 0.0
    beyond: float | None = None
    above: float = np.inf
    there: np.ndarray | None = None
    spring: float = SPRING
    fails: int = 0
    stalls: int = 0
    end: float | None = None

    @property
    def limit(self):
        return self.axis.high if self.sign > 0 else self.axis.low


def _axis(task, x, covariance, quantity):
    q = of(task, quantity)
    value, slope = float(q(x)[0]), gradient(q, x, task)[0]
    se = float(np.sqrt(max(slope @ covariance @ slope, 0.0)))
    known = 0 < se < np.inf
    unit = se if known else max(abs(value), 1e-3) * 0.1
    path = covariance @ slope / unit**2 if known else np.zeros_like(slope)
    named = isinstance(quantity, str)
    low, high = task.form.bounds[quantity] if named else (-np.inf, np.inf)
    own = task.form.params.index(quantity) if named else None
    # a size far along its path stays above zero, a difference of two exponents does not
    far = q(np.clip(x - np.linspace(0, 2, 9)[:, None] * (value + 4 * unit) * path, *task.box))
    if value > 0 and unit > 0.2 * value and (far[np.isfinite(far)] > 0).all():
        with np.errstate(divide="ignore"):
            low, high = np.log(np.maximum((low, high), 0.0))
        return _Axis(q, own, True, se, float(np.log(value)), unit / value, path * value, low, high, FAR_LOG)
    return _Axis(q, own, False, se, value, unit, path, low, high, FAR * unit)


def _side(axis, sign, x, threshold):
    return _Side(axis, sign, axis.start, x, 1 / axis.unit, axis.path, axis.unit * threshold)


def _u(axis, x):
    values = axis.q(x)
    with np.errstate(all="ignore"):
        return np.log(values) if axis.logarithmic else values


def _u_and_slope(axis, x, task):
    """u(x) [B] and du/dx [B, p]: of a parameter by hand."""
    if axis.own is None:
        return _with_gradient(lambda at: _u(axis, at), x, task)
    out, value = np.zeros_like(x), axis.q(x)
    out[:, axis.own] = (value if task.logarithmic[axis.own] else 1.0) / (value if axis.logarithmic else 1.0)
    return np.log(value) if axis.logarithmic else value, out


def _value(axis, u):
    return float(np.exp(u)) if axis.logarithmic else float(u)


def _walk(task, sides, x, s2, threshold):
    """Finds where tau reaches the threshold on each side: outwards by the slope of tau, then closing in; all sides in one batch."""
    base = _cost(task, x)[0]
    for turn in range(ROUNDS):
        open_ = [side for side in sides if side.end is None]
        if not open_:
            return
        goals = [_goal(side) for side in open_]
        begin = np.stack([_begin(side, goal) for side, goal in zip(open_, goals, strict=True)])
        found, converged = _pulled(task, open_, begin, goals, np.sqrt(s2))
        u = [float(_u(side.axis, one[None])[0]) for side, one in zip(open_, found, strict=True)]
        tau = np.sqrt(np.maximum(_cost(task, found) - base, 0.0) / s2)
        for side, goal, *point in zip(open_, goals, u, tau, found, converged, strict=True):
            _advance(side, goal, *point, threshold)
            if side.end is None:
                side.ask = _next(side, threshold, halve=turn % 4 == 3)
    for side in sides:
        if side.end is None:
            side.end = side.limit if side.beyond is None else side.beyond


def _cost(task, x):
    """Twice the objective at x [B, p]."""
    return 2 * (task.points.weights * solve.rho(task.residual(x)[0], task.delta)).sum(1)


def _goal(side):
    return float(np.clip(side.axis.start + side.sign * side.ask, side.axis.low, side.axis.high))


def _begin(side, goal):
    if side.beyond is None:
        return side.here + (goal - side.at) * side.path
    return side.here + (goal - side.at) / (side.beyond - side.at) * (side.there - side.here)


def _advance(side, goal, u, tau, x, converged, threshold):
    """Takes a point of the profile into account."""
    gained, unit = side.sign * (u - side.at), side.axis.unit
    if abs(u - goal) > 0.3 * abs(goal - side.at):
        side.spring = min(3 * side.spring, STIFF)
    if not converged or not np.isfinite(u) or not np.isfinite(tau) or gained < -1e-6 * unit:
        side.fails += 1
        if side.fails > FAILS:
            side.end = side.at
        return
    side.fails = max(side.fails - 1, 0)
    if tau > side.tau and gained > 0:
        side.slope, side.path = (tau - side.tau) / gained, (x - side.here) / (u - side.at)
    if abs(tau - threshold) <= CLOSE * threshold:
        side.end = float(np.clip(u + side.sign * (threshold - tau) / side.slope, side.axis.low, side.axis.high))
    elif tau > threshold:
        side.beyond, side.above, side.there = u, tau, x
    else:
        moved = gained > 1e-3 * abs(goal - side.at) or tau > side.tau + 1e-3 * threshold
        side.stalls = 0 if moved else side.stalls + 1
        side.at, side.tau, side.here = u, max(tau, side.tau), x
        if (goal == side.limit and abs(u - goal) <= 1e-6 * unit) or abs(u - side.axis.start) > side.axis.far:
            side.end = side.limit
        elif side.stalls > STALLS:
            side.end = side.limit if goal == side.limit else u
    if side.end is None and side.beyond is not None and abs(side.beyond - side.at) <= 1e-3 * unit:
        side.end = side.beyond  # tau jumps, as from one branch of Huber's loss to another


def _next(side, threshold, halve):
    """How far from the start to ask for the next point."""
    gone, unit = abs(side.at - side.axis.start), side.axis.unit
    if side.fails and side.beyond is None:
        return gone + 0.5**side.fails * threshold * unit
    if side.beyond is None:
        return gone + float(np.clip((threshold - side.tau) / side.slope, 0.1 * unit, 4 * max(gone, unit)))
    share = 0.5 if halve or side.fails else (threshold - side.tau) / (side.above - side.tau)
    return gone + float(np.clip(share, 0.02, 0.98)) * abs(side.beyond - side.at)


def _pulled(task, sides, begin, goals, noise):
    """The best x [B, p] under springs that pull the u of each side to its goal, and whether each is a minimum.

    Where min S + k^2 (u - T)^2 lies, S is least among all x of that u: a point of the profile, wherever the spring comes to rest. It need
    not be stiff, so Newton's steps follow a curved path in strides.
    """
    low, high = task.box
    chord = np.array([side.tau / abs(side.at - side.axis.start) if side.tau > 0 else 1 / side.axis.unit for side in sides])
    spring, start = (np.array(column) for column in zip(*((side.spring, side.axis.start) for side in sides), strict=True))
    stiff, goals = spring * chord * noise, np.array(goals)
    target = goals + (goals - start) / spring**2  # a spring lands short of where it pulls to, by this where tau is linear
    weights, delta = np.append(task.points.weights, 1.0), np.append(np.full(len(task.points), task.delta), np.inf)

    axes = list({id(side.axis): side.axis for side in sides}.values())
    owners = np.array([next(k for k, axis in enumerate(axes) if axis is side.axis) for side in sides])

    def residual(x, which):
        r, slopes = task.residual(x)
        moved, pull = np.empty(len(x)), np.empty_like(x)
        owner = owners[which]
        for k in np.unique(owner).tolist():
            mine = np.flatnonzero(owner == k)
            moved[mine], pull[mine] = _u_and_slope(axes[k], x[mine], task)
        moved, pull = stiff[which] * (moved - target[which]), stiff[which][:, None] * pull
        return np.concatenate([r, moved[:, None]], 1), np.concatenate([slopes, pull[:, None, :]], 1)

    begin = np.clip(begin, low, high)
    with np.errstate(all="ignore"):
        usable = np.isfinite(residual(begin, np.arange(len(begin)))[0]).all(1)
    begin = np.where(usable[:, None], begin, np.stack([side.here for side in sides]))
    solved = solve.minimise(residual, begin, low, high, weights, delta, task.free, tolerance=1e-6)
    return solved.x, solved.converged
