"""Which run to make next: how much each candidate would narrow an interval of a fitted law, and at what cost.

    var(q) = s^2 g' H^-1 g,  H = J' W J        H + w j j':  var(q) falls by  s^2 w (g' H^-1 j)^2 / (1 + w j' H^-1 j)

g is the slope of the quantity, J the slopes of the residuals at the fitted points, j those at the candidate, all by the law's
parameters. Source: Sherman and Morrison 1950 for the update; Fedorov 1972 for designs chosen by it.
"""

from dataclasses import replace

import numpy as np

from scaling_jax.laws import intervals, profile
from scaling_jax.laws.fitting import problem
from scaling_jax.laws.form import NotTestable
from scaling_jax.laws.points import Points
from scaling_jax.records import ConfigError

MOST_RUNS = 1_000_000  # nobody plans more runs of one kind than this
FLOPS = 6.0  # per parameter and token, forward and backward: arXiv:2001.08361, section 2.1


def next_run(found, candidates, quantity, cost=None, level=0.95, target=None, weights=None):
    """The candidates by how much one more run narrows the interval of `quantity` per cost, best first.

        width(k) = 2 t_{n + k - p} s sqrt(g' (H + k w j j')^-1 g),  shrinkage = 1 - width(1) / width(0)

    It assumes that the law is true there, that a new run is independent and as noisy as the fitted ones on the scale of the residuals,
    that s stays as it is, and that the law is nearly linear in its parameters over their intervals (Gauss and Newton's H). For a law that
    is linear in them the width is exact in the root mean square over what the new run may show. A parameter at its bound stays there.
    The interval is the symmetric one of the standard error; a profile that leans has other ends but nearly the same shrinkage.

    Args:
      found: a Fit with its points. candidates: mapping or frame of the law's inputs, each [m]; further columns are read for costs only.
      quantity: a parameter's name, or a function of {name: value or array}, as intervals.interval takes.
      cost: of each candidate, [m] or one number above zero, or a function of the candidates; None: 6 N D FLOPs where they have params
        and tokens, else their compute, else 1 a run.
      target: width to be reached; None: not asked. weights: of each candidate's run in the fit, [m] or a number; None:
        that of a run of the points' mean variance, 1 where they have no weights.
    Returns:
      A frame indexed as the candidates: the inputs, cost, se_before, se_after, width_before, width_after, shrinkage (of the width),
      shrinkage_per_cost, with a target also runs_to_target (inf: no number of such runs gets there) and cost_to_target, and note:
      which input lies outside the fitted range, where the ranking rests on the law's shape.
    Raises:
      ConfigError: a candidate, cost, target or weight that no run can have. NotTestable: no degree of freedom, or the points do not
        determine the parameters, or the quantity does not depend on them.
    """
    import pandas as pd
    from scipy.special import stdtrit

    inputs, index = _inputs(found, candidates)
    count = len(index)
    price = _costs(candidates, cost, count)
    w = np.full(count, 1 / (1 / found.points.weights).mean()) if weights is None else _positive("weights", weights, count)
    if target is not None and not 0 < target < np.inf:
        raise ConfigError(f"target = {target!r}: expected a width above zero, or None")
    s, whole, along, own, freedom = _directions(found, inputs, quantity)

    def width(runs):
        gone = runs * w * along**2 / (1 + runs * w * own)
        return 2 * stdtrit(freedom + runs, 0.5 + level / 2) * s * np.sqrt(np.maximum(whole - gone, 0.0))

    se = s * np.sqrt(np.maximum(whole - w * along**2 / (1 + w * own), 0.0))
    before, after = width(np.zeros(count)), width(np.ones(count))
    columns = {**inputs, "cost": price, "se_before": s * np.sqrt(whole), "se_after": se, "width_before": before, "width_after": after}
    columns["shrinkage"] = 1 - after / before
    columns["shrinkage_per_cost"] = columns["shrinkage"] / price
    if target is not None:
        runs = _runs_to(width, target, count)
        columns |= {"runs_to_target": runs, "cost_to_target": runs * price}
    frame = pd.DataFrame({**columns, "note": outside(found, inputs)}, index=index)
    return frame.sort_values("shrinkage_per_cost", ascending=False, kind="stable")


def outside(found, inputs):
    """For each point of `inputs` (name -> [m]) which of them lie outside the fitted range, in words; "" where none does."""
    notes = [[] for _ in next(iter(inputs.values()))]
    for name, values in inputs.items():
        low, high = float(found.points.columns[name].min()), float(found.points.columns[name].max())
        for note, value in zip(notes, values.tolist(), strict=True):
            if not low <= value <= high:
                end, side = (low, "below") if value < low else (high, "above")
                times = f", {max(value / end, end / value):.3g} times" if value > 0 and end > 0 else ""
                note.append(f"{name} = {value:.4g} lies {side} the fitted {low:.4g} to {high:.4g}{times}")
    return ["; ".join(note) for note in notes]


def _inputs(found, candidates):
    """The law's inputs of the candidates, float64 [m] each, and the labels of their rows."""
    if found.points is None:
        raise ConfigError("found: this fit has no points to rest an interval on; fit again, or keep them in fit.json")
    names = list(candidates.columns) if hasattr(candidates, "columns") else list(candidates)
    for name in found.form.inputs:
        if name not in names:
            raise ConfigError(f"candidates: no column {name!r} in {', '.join(map(str, names))}; {found.form.name} needs it")
    inputs = {name: np.atleast_1d(np.asarray(candidates[name], np.float64)) for name in found.form.inputs}
    if len({values.shape for values in inputs.values()}) > 1 or next(iter(inputs.values())).ndim != 1:
        raise ConfigError(f"candidates: expected columns of one length, got { ({k: v.shape for k, v in inputs.items()}) }")
    for name, values in inputs.items():
        wrong = ~np.isfinite(values) | (values <= 0) if found.form.positive else ~np.isfinite(values)
        if wrong.any():
            above = " above zero" if found.form.positive else ""
            raise ConfigError(
                f"candidates: {name} = {values[wrong][0]} in row {wrong.argmax()}: expected a finite number{above}; drop the row"
            )
    index = candidates.index if hasattr(candidates, "columns") else range(len(next(iter(inputs.values()))))
    return inputs, index


def _costs(candidates, cost, count):
    """The cost of one run of each candidate [m]."""
    if cost is None:
        has = lambda *names: all(name in candidates for name in names)
        if has("params", "tokens"):
            cost = FLOPS * np.asarray(candidates["params"], np.float64) * np.asarray(candidates["tokens"], np.float64)
        else:
            cost = candidates["compute"] if has("compute") else 1.0
    return _positive("cost", cost(candidates) if callable(cost) else cost, count)


def _positive(name, values, count):
    values = np.asarray(values, np.float64)
    if values.shape not in ((), (count,)):
        raise ConfigError(f"{name}: shape {values.shape}, expected one number or {count}, one per candidate")
    values = np.broadcast_to(values, (count,))
    if not (np.isfinite(values) & (values > 0)).all():
        raise ConfigError(f"{name} = {values[~(np.isfinite(values) & (values > 0))][0]}: expected finite numbers above zero")
    return values


def _directions(found, inputs, quantity):
    """s, g' H^-1 g, g' H^-1 j [m], j' H^-1 j [m] and the degrees of freedom, by the triangle of H = R' R, not by H itself."""
    from scipy.linalg import qr, solve_triangular

    task = problem(found)
    freedom = found.n - int(task.free.sum())
    if freedom < 1:
        raise NotTestable(f"no interval: {found.n} points and {len(found.free)} free parameters leave no degree of freedom")
    intervals.answerable(found)
    low, high = task.box
    x = np.clip(task.encode(np.array([[found.params[name] for name in task.form.params]])), low, high)
    inside = task.free & (x[0] > low) & (x[0] < high)
    r, slopes = task.residual(x)
    s2, _ = profile.scale(task, x, freedom)
    # a residual beyond Huber's delta pulls and does not bend: the mean of psi' is what one run adds to H
    bend = 1.0 if np.isinf(task.delta) else profile.slope_of_psi(r[0], task.points.weights, task.delta, found.n - freedom)
    slope = profile.gradient(profile.of(task, quantity), x, task)[0, inside]
    if not np.isfinite(slope).all() or not slope.any():
        raise NotTestable(
            f"quantity: its slope by {', '.join(np.array(task.form.params)[inside])} is {slope}; it does not depend on the fit"
        )
    rows = slopes[0][:, inside] * np.sqrt(bend * task.points.weights)[:, None]
    size = np.sqrt((rows**2).sum(0))  # columns of one size: the logarithm of A and alpha are not
    triangle = qr(rows / size, mode="r")[0][: rows.shape[1]]
    there = replace(task, points=Points(inputs, found.predict(inputs), np.ones(len(next(iter(inputs.values())))), np.arange(1)))
    with np.errstate(all="ignore"):
        new = there.residual(x)[1][0][:, inside] * np.sqrt(bend) / size
    if not np.isfinite(new).all():
        raise ConfigError(f"candidates: {found.form.name} has no finite slope in row {(~np.isfinite(new)).any(1).argmax()}; drop the row")
    g = solve_triangular(triangle, slope / size, trans="T")
    j = solve_triangular(triangle, new.T, trans="T")
    return float(np.sqrt(s2)), float(g @ g), g @ j, (j**2).sum(0), freedom


def _runs_to(width, target, count):
    """The smallest number of runs of each candidate with width <= target, inf beyond `MOST_RUNS`; 0 where it is there already."""
    low, high = np.zeros(count), np.full(count, float(MOST_RUNS))
    reached = width(high) <= target
    there = width(low) <= target
    while (high - low > 1).any():
        middle = np.floor((low + high) / 2)
        enough = width(middle) <= target
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(there, 0.0, np.where(reached, high, np.inf))
