"""Batched bounded least squares and Huber regression: many starts, or many resamples, as one array program.

    minimise_x  F(x) = sum_i w_i rho_i(r_i(x)),   rho(r) = r^2 / 2 for |r| <= delta, delta (|r| - delta / 2) beyond

by damped Newton steps with the Hessian J' diag(w psi') J, psi = rho': of residuals beyond delta only the pull counts, not the
curvature. Reweighting (IRLS) counts them as springs and needs five times the steps: on 240 points of which most lie beyond
delta, 50 against 10 to the last digit. Every problem steps until it has converged, then leaves the batch.
Source: Levenberg 1944, Marquardt 1963; Newton steps for Huber's function, Madsen and Nielsen 1990.
"""

from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-13  # relative fall of the objective by a whole step that counts as none
STEPS = 200
CHUNK = 30_000  # residuals worked on at a time: what the cache holds
SOFTEST, HARDEST = 1e-12, 1e9  # damping, in units of the diagonal


@dataclass(frozen=True)
class Solution:
    """x [B, p], objective [B], converged [B] (bool), steps [B]."""

    x: np.ndarray
    objective: np.ndarray
    converged: np.ndarray
    steps: np.ndarray


def minimise(residual, start, low, high, weights, delta, free=None, tolerance=TOLERANCE, steps=STEPS):
    """The bounded minimum of F from each start, problem by problem.

    Args:
      residual: (x [B, p], which [B]) -> (r [B, n], dr/dx [B, n, p]); `which` are the positions of these problems in the batch.
      start: [B, p]. low, high: [p], ends of the box; may be infinite.
      weights: [B, n] or [n], not negative. delta: [n] or a number; infinite for least squares.
      free: [p] bool, the coordinates that move; None: all.
    Returns:
      Solution; a problem whose residuals are not finite at its start has an infinite objective and has not converged.
    """
    start = np.array(start, np.float64)
    sets = len(start)
    parts = []
    with np.errstate(all="ignore"):  # a start far out overflows: it is rejected by its objective, not by a warning
        width = residual(start[:1], np.arange(1))[0].shape[1] if sets else 1
        size = max(1, CHUNK // max(width, 1))
        for first in range(0, sets, size):
            which = np.arange(first, min(first + size, sets))
            w = weights if np.ndim(weights) == 1 else weights[which]
            parts.append(_chunk(residual, start[which], which, low, high, w, delta, free, tolerance, steps))
    return Solution(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def rho(r, delta):
    """Huber's function of the residuals, r^2 / 2 where delta is infinite."""
    size = np.abs(r)
    with np.errstate(invalid="ignore"):
        return np.where(size <= delta, 0.5 * r * r, delta * (size - 0.5 * delta))


def _chunk(residual, x, which, low, high, w, delta, free, tolerance, steps):
    sets, count = x.shape
    x = np.clip(x, low, high)
    moves = np.ones(count, bool) if free is None else np.asarray(free, bool)
    w = np.broadcast_to(w, (sets, np.shape(w)[-1]))
    r, J = residual(x, which)
    f = (w * rho(r, delta)).sum(1)
    usable = np.isfinite(f) & np.isfinite(J).all((1, 2))
    out_x, out_f, converged, taken = x.copy(), np.where(usable, f, np.inf), np.zeros(sets, bool), np.zeros(sets, int)
    at = np.flatnonzero(usable)
    x, r, J, f, w, damping = x[at], r[at], J[at], f[at], w[at], np.full(len(at), 1e-2)
    quiet = np.zeros(len(at), int)
    for _ in range(steps):
        if not len(at):
            break
        step, flat = _step(x, r, J, w, delta, damping, low, high, moves)
        there = np.clip(x + step, low, high)
        r2, J2 = residual(there, which[at])
        f2 = (w * rho(r2, delta)).sum(1)
        better = (f2 <= f) & np.isfinite(J2).all((1, 2))
        small = (f - f2) <= tolerance * f
        x, f = np.where(better[:, None], there, x), np.where(better, f2, f)
        r, J = np.where(better[:, None], r2, r), np.where(better[:, None, None], J2, J)
        damping = np.where(better, np.maximum(damping / 8, SOFTEST), np.minimum(damping * 4, HARDEST))
        quiet = np.where(better & small, quiet + 1, np.where(better, 0, quiet))
        taken[at] += 1
        # two whole steps without a fall, a step of nothing, or no fall however short the step: the minimum, to rounding
        done = (quiet >= 2) | flat | (damping >= HARDEST)
        if done.any():
            ended = at[done]
            out_x[ended], out_f[ended], converged[ended] = x[done], f[done], True
            keep = ~done
            at, x, r, J, f, w, damping, quiet = (v[keep] for v in (at, x, r, J, f, w, damping, quiet))
    out_x[at], out_f[at] = x, f
    return out_x, out_f, converged, taken


def _step(x, r, J, w, delta, damping, low, high, moves):
    """The damped Newton step [B, p] within the box, and where the objective is flat [B]."""
    size = np.abs(r)
    inside = size <= delta
    with np.errstate(invalid="ignore", divide="ignore"):
        spring = w * np.where(inside, 1.0, delta / np.maximum(size, np.finfo(float).tiny))
    gradient = np.matmul((spring * r)[:, None, :], J)[:, 0]
    held = ~moves | ((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0))
    gradient = np.where(held, 0.0, gradient)
    weighted = J * spring[..., None]
    scale = np.einsum("bni,bni->bi", weighted, J)
    if np.isinf(delta).all():
        hessian = np.matmul(weighted.transpose(0, 2, 1), J)
    else:
        hessian = np.matmul((J * (w * inside)[..., None]).transpose(0, 2, 1), J)
    floor = 1e-14 * scale.max(1, keepdims=True) + np.finfo(float).tiny
    matrix = np.where(held[:, :, None] | held[:, None, :], 0.0, hessian)
    diagonal = np.where(held, 1.0, damping[:, None] * scale + floor)
    matrix[:, np.arange(x.shape[1]), np.arange(x.shape[1])] += diagonal
    step = -np.linalg.solve(matrix, gradient[..., None])[..., 0]
    return step, (np.abs(step) <= 1e-15 * np.maximum(np.abs(x), 1e-15)).all(1)
