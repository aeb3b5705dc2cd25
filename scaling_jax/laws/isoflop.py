"""Compute-optimal size and data three ways: Chinchilla's approaches 1, 2 and 3 side by side (arXiv:2203.15556, section 3).

    N_opt(C) = k C^a,  D_opt(C) = C / (6 N_opt(C)) = C^(1 - a) / (6 k)

1 takes the envelope of training curves, 2 the minima of parabolas in ln N at equal compute, 3 the fitted parametric law. Approaches 1
and 2 are biased even without noise: a parabola is symmetric, the law around its minimum is not, and an envelope ends at the smallest and
the largest size. That bias depends on the grid of sizes, so it is measured: the approach is applied to noise-free losses of the law of
approach 3 at the very points given, and what comes out is compared with that law's own exponent.

The intervals of approaches 1 and 2 are for their own noise-free value: what the approach would say on these points without noise, bias
included. An envelope is a best point of a grid, which no jackknife suits; so worlds are drawn, the law of approach 3 with noise like its
residuals, and the approach is applied to each: a parametric bootstrap. What noise shifts the approach by, as that of an envelope, whose
lowest loss is often a lucky one, is taken off. What is covered at which points: benchmarks/coverage_isoflop.py, or `covered`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scaling_jax.laws import forms, intervals, measured
from scaling_jax.laws.derived import compute_optimal
from scaling_jax.laws.fitting import Fit, fit
from scaling_jax.laws.form import NotTestable

SAME = 0.1  # runs whose ln(compute) lies closer than this to their neighbour's share a budget ...
WIDEST = 0.3  # ... unless such runs reach further than this: then they have no budgets
FEWEST = 3  # points that bend: of a parabola, of a training curve
ENVELOPE = 400  # values of compute at which the envelope is looked at; with 100 their steps are wider than noise of 0.1% moves it
WORLDS = 999  # drawn for an interval: the 25th of them from either end is the 95% one
LOST = 0.2  # share of worlds without an answer from which on the others say nothing about the noise
CHUNK = 400_000  # losses worked on at a time


@dataclass(frozen=True)
class Line:
    """ln N_opt = ln k + a ln C of one approach.

    optima: the points (C, N_opt) it goes through [m, 2]. free: (a, ln k) without noise under the law of approach 3; bias: how far that `a`
    is from the law's. drawn: (a, ln k) of the worlds that have an answer [W, 2]. lost: share of the worlds that have none. reason: why
    there is no line, or none with an interval.
    """

    name: str
    a: float = float("nan")
    log_k: float = float("nan")
    optima: np.ndarray | None = None
    free: tuple | None = None
    bias: float | None = None
    drawn: np.ndarray | None = None
    lost: float = 0.0
    reason: str = ""

    def log_size(self, compute):
        """ln N_opt at `compute` FLOPs."""
        return self.log_k + self.a * np.log(compute)

    def interval(self, compute=None, level=0.95):
        """(value, low, high) of ln N_opt at `compute` FLOPs, or of `a`: the ends are for its noise-free value.

        value - q_(1 - t) to value - q_t, t = (1 - level) / 2, q the quantiles of (world - noise-free value of the worlds' law). An end is
        infinite where the worlds are too few for the level. Source: Davison and Hinkley 1997, section 5.2 (basic bootstrap limits).
        """
        at = np.array([1.0, 0.0] if compute is None else [np.log(compute), 1.0])
        value = float(at @ (self.a, self.log_k))
        off = np.sort(self.drawn @ at - at @ self.free)
        tail = int((1 - level) / 2 * (len(off) + 1) + 1e-9)
        return (value, float(value - off[-tail]), float(value - off[tail - 1])) if tail else (value, -np.inf, np.inf)


@dataclass(frozen=True)
class IsoFlop:
    """The three approaches: `envelope`, `parabolas` (Lines), `law` (the Fit of approach 3, or None with its reason)."""

    envelope: Line
    parabolas: Line
    law: Fit | None
    reason: str = ""

    @property
    def lines(self):
        """The approaches 1 and 2 that have an answer."""
        return [line for line in (self.envelope, self.parabolas) if not line.reason]

    def exponents(self, level=0.95):
        """a of N_opt ~ C^a by approach: name -> (value, low, high); an approach that has none is left out."""
        out = {line.name: line.interval(None, level) for line in self.lines}
        if self.law is not None:
            found = self.law.interval(_exponent, level)
            out["3 law"] = (found.value, found.low, found.high)
        return out

    def optimum(self, compute, level=0.95):
        """N_opt and D_opt at `compute` FLOPs by approach: name -> {"params": (value, low, high), "tokens": (value, low, high)}."""
        out = {line.name: _both(np.exp(line.interval(compute, level)), compute) for line in self.lines}
        if self.law is not None:
            found = self.law.interval(_log_size(compute), level)
            out["3 law"] = _both(np.exp([found.value, found.low, found.high]), compute)
        return out


def isoflop(data, budget=None, loss="loss", seed=0):
    """Approaches 1, 2 and 3 on one set of runs.

    Args:
      data: frame or mapping of params, tokens and `loss`; for approach 1 every size needs its loss at several token counts, for approach 2
        several sizes at equal compute 6 N D.
      budget: the column that says which runs share a budget; None: those whose compute agrees.
      seed: of the worlds that the intervals of approaches 1 and 2 come from.
    """
    size, tokens, y = (np.asarray(data[name], np.float64) for name in ("params", "tokens", loss))
    if not (np.isfinite(y).all() and (size > 0).all() and (tokens > 0).all()):
        raise ValueError("params and tokens must lie above zero and every loss be finite; drop the rows that are not")
    law, reason = None, ""
    try:
        law = fit(forms.chinchilla, {"params": size, "tokens": tokens, "loss": y})
        if not law.identified:
            law, reason = None, law.warnings[0]
    except NotTestable as error:
        reason = str(error)
    lines = []
    for i, (name, approach) in enumerate(approaches(size, tokens, None if budget is None else data[budget]).items()):
        try:
            lines.append(_line(name, approach(), y, law, reason, np.random.default_rng([seed, i])))
        except NotTestable as error:
            lines.append(Line(name, reason=str(error)))
    return IsoFlop(*lines, law, reason)


def noise_free(params, data, budget=None):
    """(a, ln k) by approach on the losses of a `chinchilla` law at these points, of approaches that have an answer there.

    Args:
      params: the law's, names -> numbers, or a Fit. data, budget: as of `isoflop`; the column of losses is not used.
    """
    size, tokens = (np.asarray(data[name], np.float64) for name in ("params", "tokens"))
    truth = forms.chinchilla.predict(params.params if isinstance(params, Fit) else params, {"params": size, "tokens": tokens})
    out = {}
    for name, approach in approaches(size, tokens, None if budget is None else data[budget]).items():
        try:
            out[name] = approach().answer(truth)[:2]
        except NotTestable:
            continue
    a = float(_exponent(params))
    out["3 law"] = a, float(_log_size(6.0)(params)) - a * np.log(6.0)
    return out


def covered(params, data, compute, noise=None, budget=None, worlds=200, seed=0, level=0.95, third=True):
    """What the intervals cover at these points: approach -> {"a", "N_opt": Coverage}; of 1 and 2 for their noise-free values.

    Each world is the law with noise anew, its law is fitted and its intervals asked for. D_opt = C / (6 N_opt) is covered where N_opt is.

    Args:
      params: the law that is true in every world, names -> numbers, or a Fit. data, budget: as of `isoflop`; losses are not used.
      compute: FLOPs of N_opt. noise: rng -> noise of ln(loss) [n]; None: as the residuals of the Fit. third: whether approach 3 is asked.
    """
    truth = noise_free(params, data, budget)
    if not third:
        del truth["3 law"]
    columns = {name: np.asarray(data[name], np.float64) for name in ("params", "tokens")}
    law = forms.chinchilla.predict(params.params if isinstance(params, Fit) else params, columns)
    labels = {} if budget is None else {budget: data[budget]}
    draw = _residual_noise(params) if noise is None else noise
    ends = {name: [] for name in truth}
    for world in range(worlds):
        losses = law * np.exp(draw(np.random.default_rng([seed, world, 1])))
        found = isoflop({**columns, **labels, "loss": losses}, budget, seed=world)
        for line in found.lines:
            if line.name in ends:
                ends[line.name].append([line.interval(at, level)[1:] for at in (None, compute)])
        if third and found.law is not None:
            ends["3 law"].append([(one.low, one.high) for one in intervals.several(found.law, [_exponent, _log_size(compute)], level)])
    out = {}
    for name, (a, log_k) in truth.items():
        refused = worlds - len(ends[name])
        of_a = measured.tally(a, [one for one, _ in ends[name]], refused)
        of_size = measured.tally(np.exp(log_k + a * np.log(compute)), np.exp([one for _, one in ends[name]]).tolist(), refused)
        out[name] = {"a": of_a, "N_opt": of_size}
    return out


def _exponent(p):
    """a of the law's N_opt ~ C^a."""
    return p["beta"] / (p["alpha"] + p["beta"])


def _log_size(compute):
    """The law's ln N_opt at `compute` FLOPs, as a function of its parameters."""
    return lambda p: np.log(compute_optimal(p, compute)[0])


@dataclass(frozen=True)
class Approach:
    """How N_opt is read off losses. trace: losses [B, n] -> (ln C [m], ln N_opt [B, m], whether it is one [B, m]).

    needs: optima that a line takes, not all of one size. few: what to say where there are fewer, with {} for their number.
    """

    trace: Callable
    needs: int
    few: str

    def lines(self, losses):
        """(a, ln k) of each row of losses: [B, 2]; nan where there are too few optima."""
        log_c, log_n, held = self.trace(losses)
        log_n, weight = np.where(held, log_n, 0.0), held.astype(np.float64)
        total = np.maximum(weight.sum(1), 1.0)
        middle_c, middle_n = weight @ log_c / total, log_n.sum(1) / total
        off = (log_c - middle_c[:, None]) * weight
        several = np.where(held, log_n, -np.inf).max(1) > np.where(held, log_n, np.inf).min(1)
        with np.errstate(all="ignore"):
            a = np.where(several & (total >= self.needs), (off * log_n).sum(1) / (off * log_c).sum(1), np.nan)
        return np.stack([a, middle_n - a * middle_c], 1)

    def answer(self, y):
        """(a, ln k, optima [m, 2]) of one set of losses [n]; NotTestable where there is none."""
        log_c, log_n, held = self.trace(y[None])
        a, log_k = self.lines(y[None])[0]
        if not np.isfinite(a):
            raise NotTestable(self.few.format(held.sum()))
        return float(a), float(log_k), np.exp(np.stack([log_c, log_n[0]], 1)[held[0]])


def _line(name, approach, y, law, reason, rng):
    """One approach as a Line: on the losses given, on those of the law without noise, and in worlds."""
    a, log_k, optima = approach.answer(y)
    if law is None:
        raise NotTestable(f"its interval takes the noise from the law of approach 3, which has none: {reason}")
    truth = law.predict(law.points.columns)
    try:
        free = approach.answer(truth)[:2]
    except NotTestable as error:
        raise NotTestable(f"without noise, under the law of approach 3, it has no answer at these points: {error}") from error
    bias = free[0] - float(_exponent(law))
    drawn, noise, degrees = [], _residual_noise(law), law.n - len(law.free)
    each = max(1, CHUNK // max(law.n, ENVELOPE))
    for first in range(0, WORLDS, each):
        count = min(each, WORLDS - first)
        # the size of the noise is known from so many residuals only: with it drawn too, what is linear in the noise has Student's t
        wide = np.sqrt(degrees / rng.chisquare(degrees, (count, 1)))
        drawn.append(approach.lines(truth * np.exp(wide * noise(rng, count))))
    drawn = np.concatenate(drawn)
    answered = np.isfinite(drawn[:, 0])
    lost = 1 - float(answered.mean())
    if lost > LOST:
        raise NotTestable(f"too noisy: in {lost:.0%} of the worlds drawn from the law of approach 3 it has no answer")
    return Line(name, a, log_k, optima, free, bias, drawn[answered], lost)


def _residual_noise(law):
    """(rng, count) -> noise of ln(loss) [count, n], each row's its own; without count [n]. Drawn from the residuals but the p smallest.

    Those are nearly zero because a law of p parameters fitted by Huber's loss goes through p points.
    """
    residual, degrees = law.residuals(), law.n - len(law.free)
    kept = residual[np.argsort(np.abs(residual), kind="stable")[law.n - degrees :]]
    return lambda rng, count=None: rng.choice(kept, law.n if count is None else (count, law.n))


def approaches(size, tokens, labels):
    """Approaches 1 and 2 by name: functions that return the Approach at these points, or raise NotTestable.

    labels: of the budgets [n]; None: those whose compute agrees.
    """
    groups = budgets(6 * size * tokens) if labels is None else np.unique(np.asarray(labels), return_inverse=True)[1]
    return {"1 envelope": lambda: _envelope(size, tokens), "2 parabolas": lambda: _parabolas(size, tokens, groups)}


def _envelope(size, tokens):
    """Approach 1: which size has the lowest loss at each compute, each size's curve interpolated in ln compute."""
    curves = {}
    for one in np.unique(size):
        rows = np.flatnonzero(size == one)
        log_c, inverse = np.unique(np.log(6 * one * tokens[rows]), return_inverse=True)
        if len(log_c) >= FEWEST:
            curves[one] = rows, log_c, inverse
    if len(curves) < FEWEST:
        raise NotTestable(f"{len(curves)} sizes have a loss at {FEWEST} token counts or more, the envelope needs {FEWEST}")
    grid = np.linspace(min(c[0] for _, c, _ in curves.values()), max(c[-1] for _, c, _ in curves.values()), ENVELOPE)
    matrices, within = [], []  # a curve at the grid is linear in its losses: [grid, rows]
    for rows, log_c, inverse in curves.values():
        mean = (inverse == np.arange(len(log_c))[:, None]) / np.bincount(inverse)[:, None]  # of rows of one token count
        matrices.append((rows, np.stack([np.interp(grid, log_c, knot) for knot in np.eye(len(log_c))], 1) @ mean))
        within.append((grid >= log_c[0]) & (grid <= log_c[-1]))
    log_sizes, choice = np.log(list(curves)), np.sum(within, 0) > 1

    def trace(losses):
        lowest, best = np.full((len(losses), ENVELOPE), np.inf), np.zeros((len(losses), ENVELOPE), np.int32)
        for i, ((rows, matrix), inside) in enumerate(zip(matrices, within, strict=True)):
            seen = losses[:, rows] @ matrix.T
            better = inside & (seen < lowest)
            lowest, best = np.where(better, seen, lowest), np.where(better, np.int32(i), best)
        # where the smallest or the largest size leads, a smaller or larger one might have; where one curve is alone there is no choice
        return grid, log_sizes[best], (best > 0) & (best < len(log_sizes) - 1) & choice

    return Approach(trace, 2, "fewer than two sizes between the smallest and the largest lead anywhere on the envelope")


def _parabolas(size, tokens, label):
    """Approach 2: a parabola in ln N through the losses of each budget, then a line through the minima."""
    few = f"{{}} budgets have {FEWEST} sizes or more with a minimum among them, the line needs {FEWEST} budgets; name the column that tells them (budget)"
    rows = [np.flatnonzero(label == one) for one in np.unique(label)]
    rows = [mine for mine in rows if len(np.unique(size[mine])) >= FEWEST]
    if len(rows) < FEWEST:
        raise NotTestable(few.format(len(rows)))
    log_c = np.array([np.log(6 * size[mine] * tokens[mine]).mean() for mine in rows])
    middles = [np.log(size[mine]).mean() for mine in rows]
    matrices = [np.linalg.pinv(np.vander(np.log(size[mine]) - middle, 3)) for mine, middle in zip(rows, middles, strict=True)]

    def trace(losses):
        lowest, held = [], []
        for mine, middle, matrix in zip(rows, middles, matrices, strict=True):
            bend, slope, _ = matrix @ losses[:, mine].T
            with np.errstate(all="ignore"):
                lowest.append(middle - slope / (2 * bend))
                inside = (lowest[-1] >= np.log(size[mine].min())) & (lowest[-1] <= np.log(size[mine].max()))
            held.append((bend > 0) & inside)
        return log_c, np.stack(lowest, 1), np.stack(held, 1)

    return Approach(trace, FEWEST, few)


def budgets(compute):
    """Budget of each run: runs whose compute is nearly that of the next share one; each its own where they are scattered."""
    order = np.argsort(compute)
    log_c = np.log(compute[order])
    group = np.cumsum(np.diff(log_c, prepend=-np.inf) > SAME)
    widths = [np.ptp(log_c[group == one]) for one in np.unique(group)]
    out = np.empty(len(compute), int)
    out[order] = group if max(widths) <= WIDEST else np.arange(len(compute))
    return out


def _both(sizes, compute):
    value, low, high = map(float, sizes)
    return {"params": (value, low, high), "tokens": tuple(compute / (6 * one) for one in (value, high, low))}
