"""Profile intervals: how far a parameter, or anything computed from the parameters, can move before the fit gets visibly worse.

    tau^2(q_0) = (min_{theta: q(theta) = q_0} S(theta) - S(theta_hat)) / s^2,    interval: tau(q_0) <= t_{n - p, (1 + level) / 2}

S is the sum of squares, s^2 = S(theta_hat) / (n - p). No step of it assumes that the parameters are normal or the law is linear in
them, and it does not change when a parameter is replaced by its logarithm. With Huber's loss S is twice that and s^2 becomes
sum psi^2 / (n - p) / mean psi', the robust likelihood ratio. An end that the data do not bound is the end of the parameter's range,
or infinite. Source: Bates and Watts 1988, chapter 6; Ronchetti 1982 for the robust form.
"""

import numpy as np

from scaling_jax.laws.fitting import problem
from scaling_jax.laws.form import NotTestable

STIFF = 10.0  # of the spring that pulls q to a target: where it ends is the profile at the q reached, however soft the spring
REACH = 60  # steps outwards before an end counts as not bounded
CLOSE = 1e-3  # of the threshold: how exactly an end is found


def profile(found, quantity, level=0.95):
    """The interval (low, high) of `quantity` at `level`, and its standard error in the middle, from the curvature.

    Args:
      quantity: a parameter's name, or a function from {name: value or array} to a number or an array of that shape.
    Raises:
      NotTestable: the points do not determine the parameters.
    """
    from scipy.special import stdtrit

    task = problem(found)
    freedom = found.n - int(task.free.sum())
    if freedom < 1:
        raise NotTestable(f"no interval: {found.n} points and {len(found.free)} free parameters leave no degree of freedom")
    q = of(task, quantity)
    x = task.encode(np.array([[found.params[name] for name in task.form.params]]))
    low_x, high_x = task.box
    x = np.clip(x, low_x, high_x)
    s2, hessian = scale(task, x, freedom)
    value = float(q(x)[0])
    slope = gradient(q, x, task)[0]
    # what sits at a bound moves inwards only: it counts in the search, not in the curvature
    inside = task.free & (x[0] > low_x) & (x[0] < high_x)
    covariance = np.zeros_like(hessian)
    covariance[np.ix_(inside, inside)] = s2 * np.linalg.pinv(hessian[np.ix_(inside, inside)], rcond=1e-14, hermitian=True)
    se = float(np.sqrt(max(slope @ covariance @ slope, 0.0)))
    if not se > 0:
        se = max(abs(value), 1e-3) * 0.1
    threshold = float(stdtrit(freedom, 0.5 + level / 2))
    base = float(_cost(task, x)[0])
    bounds = found.form.bounds[quantity] if isinstance(quantity, str) else (-np.inf, np.inf)
    path = covariance @ slope / se**2
    ends = [_end(task, q, x, value, se, side, threshold, s2, base, bounds, path) for side in (-1, 1)]
    return ends[0], ends[1], se, freedom


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
    """dq/dx [B, p] of the coordinates that are free, by central differences, all in one call of q."""
    moves = np.flatnonzero(task.free)
    out = np.zeros_like(x)
    step = 1e-6 * np.maximum(1.0, np.abs(x[:, moves]) * 1e-2)  # [B, f]
    near = np.repeat(x[:, None, :], 2 * len(moves), 1)
    for i, at in enumerate(moves):
        near[:, 2 * i, at] += step[:, i]
        near[:, 2 * i + 1, at] -= step[:, i]
    values = q(near.reshape(-1, x.shape[1])).reshape(len(x), len(moves), 2)
    out[:, moves] = (values[..., 0] - values[..., 1]) / (2 * step)
    return out


def scale(task, x, freedom):
    """(s^2, H): the noise level that twice the objective is measured in, and J' w J in units where 2 F = r' H r."""
    r, slopes = task.residual(x)
    r, slopes, w = r[0], slopes[0], task.points.weights
    if np.isinf(task.delta):
        return float((w * r * r).sum()) / freedom, (slopes * w[:, None]).T @ slopes
    psi = np.clip(r, -task.delta, task.delta)
    curvature = slope_of_psi(r, w, task.delta)
    return float((w * psi * psi).sum()) / freedom / curvature, curvature * (slopes * w[:, None]).T @ slopes


def slope_of_psi(r, w, delta):
    """Mean of psi' over the noise: the share of residuals within delta, by a window wide enough to hold some at any n.

    For a wide window h it is (psi(r + h) - psi(r - h)) / (2 h), the slope of the mean of psi when all residuals shift together.
    """
    spread = np.median(np.abs(r)) / 0.6745
    window = max(delta, 0.9 * spread * max((w > 0).sum(), 1) ** -0.2)
    moved = np.clip(r + window, -delta, delta) - np.clip(r - window, -delta, delta)
    return float((w * moved).sum() / w.sum() / (2 * window)) or 1.0


def _cost(task, x):
    """Twice the objective at x [B, p]."""
    from scaling_jax.laws.solve import rho

    return 2 * (task.points.weights * rho(task.residual(x)[0], task.delta)).sum(1)


def _end(task, q, x, value, se, side, threshold, s2, base, bounds, path):
    """Where tau reaches the threshold on one side: walk outwards, then close in."""
    relative = value > 0 and se > 0.2 * value and not (isinstance(bounds[0], float) and bounds[0] < 0)
    move = (lambda at, by: at * np.exp(by * se / value)) if relative else (lambda at, by: at + by * se)
    at, tau, here, by = value, 0.0, x, 0.5 * threshold
    path = path * (value if relative else 1.0)
    for _ in range(REACH):
        target = float(np.clip(move(at, side * by), *bounds))
        if target == at:
            return at  # the end of the parameter's range
        guess = here + (target - at) * path if at == value and not relative else here
        reached, there, solved = _pulled(task, q, guess, target, se, s2, base)
        if not np.isfinite(there) or abs(reached - target) > 0.5 * abs(target - at):
            if np.isfinite(there) and there >= threshold:
                return _close(task, q, (at, tau, here), (reached, there, solved), threshold, se, s2, base)
            if by < 0.02:
                return at
            by /= 4
            continue
        if there >= threshold:
            return _close(task, q, (at, tau, here), (reached, there, solved), threshold, se, s2, base)
        by = min(by * (2.0 if there - tau < 0.25 * threshold else 1.0), 50.0 if not relative else 3.0)
        at, tau, here = reached, there, solved
        if relative and (at > 1e9 * value or at < 1e-12 * value):
            break
        if at in bounds or abs(at - bounds[side > 0]) <= 1e-9 * max(abs(at), 1e-9):
            return float(bounds[side > 0])
    ends = (0.0 if value > 0 and relative else -np.inf, np.inf)
    return float(max(ends[0], bounds[0]) if side < 0 else min(ends[1], bounds[1]))


def _close(task, q, inner, outer, threshold, se, s2, base):
    """The root of tau = threshold between two points of the path, by false position with bisection."""
    for turn in range(30):
        (a, tau_a, x_a), (b, tau_b, _) = inner, outer
        if abs(tau_b - threshold) < CLOSE * threshold or abs(b - a) < 1e-9 * max(abs(a), abs(b)):
            return b
        share = (threshold - tau_a) / (tau_b - tau_a) if turn % 3 < 2 else 0.5
        reached, tau, solved = _pulled(task, q, x_a, a + min(max(share, 0.05), 0.95) * (b - a), se, s2, base)
        if abs(tau - threshold) < CLOSE * threshold:
            return reached
        if tau < threshold:
            inner = (reached, tau, solved)
        else:
            outer = (reached, tau, solved)
    return outer[0]


def _pulled(task, q, x, target, se, s2, base):
    """The fit with q pulled towards `target`: (q reached, tau there, x [1, p]).

    minimise S(x) + k^2 (q(x) - target)^2: its minimum is the least S among all x with the q it reaches, a point of the profile.
    """
    from scaling_jax.laws import solve

    stiff = STIFF * np.sqrt(s2) / se
    low, high = task.box
    n = len(task.points)
    weights, delta = np.append(task.points.weights, 1.0), np.append(np.full(n, task.delta), np.inf)

    def residual(x, which):
        r, slopes = task.residual(x)
        extra = stiff * (q(x) - target)
        return np.concatenate([r, extra[:, None]], 1), np.concatenate([slopes, stiff * gradient(q, x, task)[:, None, :]], 1)

    found = solve.minimise(residual, x, low, high, weights, delta, task.free, tolerance=1e-10, steps=300).x
    return float(q(found)[0]), float(np.sqrt(max(_cost(task, found)[0] - base, 0.0) / s2)), found
