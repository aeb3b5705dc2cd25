"""Trajectory law, step by step: where curves cross loss levels, the hyperbola of steps and batch there, and the law built from those."""

import numpy as np

from scaling_jax.laws import fitting, forms, projection
from scaling_jax.laws.form import NotTestable

LEVELS = 5  # losses at which the curves of one size are compared, evenly spaced in ln L between what all of them reach
BEYOND = 16.0  # how far outside the batch sizes used a critical batch is looked for, as a factor
GRID = 161


def averaged(data):
    """Losses of `data` averaged over seeds: columns params, batch, steps, loss, one entry per distinct place, sorted."""
    places = np.stack([data[name] for name in ("params", "batch", "steps")], 1).astype(np.float64)
    if not len(places):
        raise NotTestable("no such run yet")
    order = np.lexsort(places.T[::-1])
    places, losses = places[order], data["loss"][order].astype(np.float64)
    if not np.isfinite(losses).all():
        raise NotTestable("a run diverged")
    new = np.append(True, (places[1:] != places[:-1]).any(1))
    starts = np.flatnonzero(new)
    loss = np.add.reduceat(losses, starts) / np.diff(np.append(starts, len(losses)))
    return dict(zip(("params", "batch", "steps"), places[starts].T, strict=True)) | {"loss": loss}


def select(points, keep):
    """The entries of `points` where `keep` [n] is true."""
    return {name: values[keep] for name, values in points.items()}


def curve(points):
    """The smooth curve (a, b, c) of one size and batch: L(S) = a + b / S^c, least squares."""
    if len(points["steps"]) < 4:
        raise NotTestable("fewer than four points on a trajectory")
    found = projection.project(forms.data_power, points["steps"], points["loss"], np.ones(len(points["loss"])), {})
    return np.array([found[name] for name in forms.data_power.params])


def at(curve, steps):
    """The loss of a smooth curve after `steps`."""
    a, b, c = curve
    return a + b * steps**-c


def crossings(points):
    """Steps at which every batch size reaches loss levels that all of them reach, size by size.

    Returns:
      params [K], loss [K], batches [n], steps [K, n]; K levels of all sizes together.
    """
    batches, out = np.unique(points["batch"]), []
    if len(batches) < 3:
        raise NotTestable(f"{len(batches)} batch sizes: a hyperbola has two parameters, it needs three or more")
    for size in np.unique(points["params"]):
        mine = [select(points, (points["params"] == size) & (points["batch"] == batch)) for batch in batches]
        if not all(len(one["steps"]) for one in mine):
            continue  # a size trained at some of the batch sizes only
        smooth = [curve(one) for one in mine]
        first = min(at(c, one["steps"].min()) for c, one in zip(smooth, mine, strict=True))
        last = max(at(c, one["steps"].max()) for c, one in zip(smooth, mine, strict=True))
        if not last < first * (1 - 1e-6) or any(c[1] <= 0 for c in smooth):
            raise NotTestable(f"at params = {size:g} the batch sizes have no loss in common")
        for level in np.exp(np.linspace(np.log(last), np.log(first), LEVELS + 2)[1:-1]):
            out.append((size, level, [(b / (level - a)) ** (1 / c) for a, b, c in smooth]))
    if not out:
        raise NotTestable("no size was trained at three batch sizes or more")
    params, loss, steps = zip(*out, strict=True)
    return np.array(params), np.array(loss), batches, np.array(steps)


def hyperbola(batches, steps):
    """(S_min, B_crit) [K] of S = S_min (1 + B_crit / B), least squares of ln S, B_crit within `BEYOND` of the batches: steps [K, n]."""
    grid = np.linspace(np.log(batches.min() / BEYOND), np.log(batches.max() * BEYOND), GRID)
    shape = np.log1p(np.exp(grid[:, None]) / batches)  # [G, n]
    rest = np.log(steps)[:, None, :] - shape
    least = rest.mean(2)
    squares = ((rest - least[..., None]) ** 2).sum(2)  # [K, G]
    best = squares.argmin(1)
    inner, rows = np.clip(best, 1, GRID - 2), np.arange(len(steps))
    low, middle, high = (squares[rows, inner + i] for i in (-1, 0, 1))
    bend = low - 2 * middle + high
    shift = np.where((best == inner) & (bend > 0), 0.5 * (low - high) / np.where(bend > 0, bend, 1.0), best - inner)
    critical = grid[inner] + np.clip(shift, -1, 1) * (grid[1] - grid[0])
    shape = np.log1p(np.exp(critical)[:, None] / batches)
    return np.exp((np.log(steps) - shape).mean(1)), np.exp(critical)


def critical_law(points):
    """The fit of `forms.critical_batch` to the hyperbolas of all sizes and levels."""
    _, loss, batches, steps = crossings(points)
    _, critical = hyperbola(batches, steps)
    return fitting.fit(forms.critical_batch, {"loss": loss, "batch_critical": critical})


def stepwise(points):
    """The six parameters of `forms.trajectory`, one after another, as arXiv:2403.06563 estimates them.

    B_star, alpha_B: from the hyperbolas. S_min = S / (1 + B_crit(L) / B) at every point. N_c, alpha_N: from each size's limit, of
    L = L_N + A / S_min^alpha with one A and alpha for all sizes, which stands for training to convergence. S_c, alpha_S: from all
    points with that size term.
    """
    law = critical_law(points)
    least = points["steps"] / (1 + law.predict({"loss": points["loss"]}) / points["batch"])
    sizes, limits = _limits(points["params"], least, points["loss"])
    if limits.min() <= 0:
        raise NotTestable("a size's trajectory has a limit of zero or less: its runs are too short to tell it")
    by_size = fitting.fit(forms.kaplan_size, {"params": sizes, "loss": limits})
    by_steps = fitting.fit(forms.kaplan, {**points, "steps_min": least}, fixed=dict(by_size.params))
    return {**by_steps.params, **law.params}


def _limits(params, least, loss):
    """(sizes, their limits L_N) of L = L_N + A / S_min^alpha, least squares; for every alpha the rest is linear."""
    sizes, which = np.unique(params, return_inverse=True)
    best = None
    for alpha in np.geomspace(*forms.trajectory.bounds["alpha_S"], GRID):
        basis = np.column_stack([which[:, None] == np.arange(len(sizes)), least**-alpha])
        basis[:, -1] /= basis[:, -1].max()
        solved = np.linalg.lstsq(basis, loss, rcond=None)[0]
        squares = float(((basis @ solved - loss) ** 2).sum())
        if best is None or squares < best[0]:
            best = squares, solved[:-1]
    return sizes, best[1]
