"""Compute-optimal size and data three ways: Chinchilla's approaches 1, 2 and 3 side by side (arXiv:2203.15556, section 3).

    N_opt(C) = k C^a,  D_opt(C) = C / (6 N_opt(C)) = C^(1 - a) / (6 k)

1 takes the envelope of training curves, 2 the minima of parabolas in ln N at equal compute, 3 the fitted parametric law. Approaches 1
and 2 are biased even without noise: a parabola is symmetric, the law around its minimum is not, and an envelope ends at the smallest and
the largest size. That bias depends on the grid of sizes, so it is measured: the approach is applied to noise-free losses of the law of
approach 3 at the very points given, and what comes out is compared with that law's own exponent.
"""

from dataclasses import dataclass

import numpy as np

from scaling_jax.laws import forms
from scaling_jax.laws.derived import compute_optimal
from scaling_jax.laws.fitting import Fit, fit
from scaling_jax.laws.form import NotTestable

SAME = 0.1  # runs whose ln(compute) lies closer than this to their neighbour's share a budget ...
WIDEST = 0.3  # ... unless such runs reach further than this: then they have no budgets
FEWEST = 3  # points that bend: of a parabola, of a training curve
ENVELOPE = 100  # values of compute at which the envelope is looked at


@dataclass(frozen=True)
class Line:
    """ln N_opt = ln k + a ln C of one approach, with the values of the same when each row, or size, is left out.

    optima: the points (C, N_opt) it goes through [m, 2]. bias: of `a` without noise, None where unknown. reason: why there is none.
    """

    name: str
    a: float = float("nan")
    log_k: float = float("nan")
    left_out: np.ndarray | None = None
    optima: np.ndarray | None = None
    bias: float | None = None
    reason: str = ""

    def log_size(self, compute):
        """ln N_opt at `compute` FLOPs."""
        return self.log_k + self.a * np.log(compute)


@dataclass(frozen=True)
class IsoFlop:
    """The three approaches: `envelope`, `parabolas` (Lines), `law` (the Fit of approach 3, or None with its reason)."""

    envelope: Line
    parabolas: Line
    law: Fit | None
    reason: str = ""

    def exponents(self, level=0.95):
        """a of N_opt ~ C^a by approach: name -> (value, low, high); an approach that has none is left out."""
        out = {line.name: _ends(line.a, line.left_out[:, 0], level) for line in (self.envelope, self.parabolas) if not line.reason}
        if self.law is not None:
            found = self.law.interval(lambda p: p["beta"] / (p["alpha"] + p["beta"]), level)
            out["3 law"] = (found.value, found.low, found.high)
        return out

    def optimum(self, compute, level=0.95):
        """N_opt and D_opt at `compute` FLOPs by approach: name -> {"params": (value, low, high), "tokens": (value, low, high)}."""
        out = {}
        for line in (self.envelope, self.parabolas):
            if not line.reason:
                at = line.left_out[:, 1] + line.left_out[:, 0] * np.log(compute)
                out[line.name] = _both(np.exp(_ends(line.log_size(compute), at, level)), compute)
        if self.law is not None:
            found = self.law.interval(lambda p: np.log(compute_optimal(p, compute)[0]), level)
            out["3 law"] = _both(np.exp([found.value, found.low, found.high]), compute)
        return out


def isoflop(data, budget=None, loss="loss"):
    """Approaches 1, 2 and 3 on one set of runs.

    Args:
      data: frame or mapping of params, tokens and `loss`; for approach 1 every size needs its loss at several token counts, for approach 2
        several sizes at equal compute 6 N D.
      budget: the column that says which runs share a budget; None: those whose compute agrees.
    """
    size, tokens, y = (np.asarray(data[name], np.float64) for name in ("params", "tokens", loss))
    if not (np.isfinite(y).all() and (size > 0).all() and (tokens > 0).all()):
        raise ValueError("params and tokens must lie above zero and every loss be finite; drop the rows that are not")
    groups = budgets(6 * size * tokens) if budget is None else np.unique(np.asarray(data[budget]), return_inverse=True)[1]
    law, reason = None, ""
    try:
        law = fit(forms.chinchilla, {"params": size, "tokens": tokens, "loss": y})
        if not law.identified:
            law, reason = None, law.warnings[0]
    except NotTestable as error:
        reason = str(error)
    truth = None if law is None else law.predict({"params": size, "tokens": tokens})
    exact = None if law is None else law["beta"] / (law["alpha"] + law["beta"])
    lines = []
    for name, approach, label in (("1 envelope", _envelope, size), ("2 parabolas", _parabolas, groups)):
        lines.append(_line(name, approach, size, tokens, y, label, truth, exact))
    return IsoFlop(*lines, law, reason)


def _line(name, approach, size, tokens, y, label, truth, exact):
    """One approach as a Line: on all rows, with each size or row left out, and on the noise-free losses `truth`."""
    every = np.ones(len(y), bool)
    try:
        a, log_k, optima = approach(size, tokens, y, label, every)
        left_out = []
        for drop in np.unique(size) if approach is _envelope else range(len(y)):
            kept = size != drop if approach is _envelope else np.arange(len(y)) != drop
            try:
                left_out.append(approach(size, tokens, y, label, kept)[:2])
            except NotTestable as error:
                raise NotTestable(f"it rests on too few runs for an interval: without one of them, {error}") from error
    except NotTestable as error:
        return Line(name, reason=str(error))
    bias = None
    if truth is not None:
        try:
            bias = float(approach(size, tokens, truth, label, every)[0] - exact)
        except NotTestable:
            bias = None
    return Line(name, a, log_k, np.array(left_out), optima, bias)


def _envelope(size, tokens, y, label, kept):
    """Approach 1: which size has the lowest loss at each compute, each size's curve interpolated in ln compute."""
    size, tokens, y = size[kept], tokens[kept], y[kept]
    curves = {}
    for one in np.unique(size):
        mine = size == one
        log_c, inverse = np.unique(np.log(6 * one * tokens[mine]), return_inverse=True)
        if len(log_c) >= FEWEST:
            curves[one] = log_c, np.bincount(inverse, y[mine]) / np.bincount(inverse)
    if len(curves) < FEWEST:
        raise NotTestable(f"{len(curves)} sizes have a loss at {FEWEST} token counts or more, the envelope needs {FEWEST}")
    grid = np.linspace(min(c[0][0] for c in curves.values()), max(c[0][-1] for c in curves.values()), ENVELOPE)
    losses = np.array([np.interp(grid, *curve, left=np.inf, right=np.inf) for curve in curves.values()])
    sizes = np.array(list(curves))
    best = losses.argmin(0)
    # where the smallest or the largest size leads, a smaller or larger one might have; where one curve is alone there is no choice
    inner = (best > 0) & (best < len(sizes) - 1) & (np.isfinite(losses).sum(0) > 1)
    if len(set(best[inner].tolist())) < 2:
        raise NotTestable("fewer than two sizes between the smallest and the largest lead anywhere on the envelope")
    optima = np.stack([np.exp(grid[inner]), sizes[best[inner]]], 1)
    a, log_k = np.polyfit(np.log(optima[:, 0]), np.log(optima[:, 1]), 1)
    return float(a), float(log_k), optima


def _parabolas(size, tokens, y, label, kept):
    """Approach 2: a parabola in ln N through the losses of each budget, then a line through the minima."""
    optima = []
    for one in np.unique(label[kept]):
        mine = kept & (label == one)
        x = np.log(size[mine])
        if len(set(x.tolist())) < FEWEST:
            continue
        bend, slope, _ = np.polyfit(x, y[mine], 2)
        lowest = -slope / (2 * bend) if bend > 0 else np.nan
        if x.min() <= lowest <= x.max():
            compute = np.exp(np.log(6 * size[mine] * tokens[mine]).mean())
            optima.append((compute, np.exp(lowest)))
    if len(optima) < FEWEST:
        raise NotTestable(
            f"{len(optima)} budgets have {FEWEST} sizes or more with a minimum among them, the line needs {FEWEST} budgets; name the column that tells them (budget)"
        )
    optima = np.array(optima)
    a, log_k = np.polyfit(np.log(optima[:, 0]), np.log(optima[:, 1]), 1)
    return float(a), float(log_k), optima


def budgets(compute):
    """Budget of each run: runs whose compute is nearly that of the next share one; each its own where they are scattered."""
    order = np.argsort(compute)
    log_c = np.log(compute[order])
    group = np.cumsum(np.diff(log_c, prepend=-np.inf) > SAME)
    widths = [np.ptp(log_c[group == one]) for one in np.unique(group)]
    out = np.empty(len(compute), int)
    out[order] = group if max(widths) <= WIDEST else np.arange(len(compute))
    return out


def _ends(value, left_out, level):
    """(value, low, high) by the delete-one jackknife with t quantiles."""
    from scipy.special import stdtrit

    n = len(left_out)
    se = np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
    half = stdtrit(n - 1, 0.5 + level / 2) * se
    return float(value), float(value - half), float(value + half)


def _both(sizes, compute):
    value, low, high = map(float, sizes)
    return {"params": (value, low, high), "tokens": tuple(compute / (6 * one) for one in (value, high, low))}
