"""Fitting laws: float64 least squares that says when it cannot answer.

A form `offset + scale / x ** exponent` is fitted by variable projection: for every exponent the other two follow in
closed form, so the search is over one number, global on its grid, and takes a third of a millisecond; a null test fits
thousands. Any other form goes to SciPy from several starts.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

SCHEMA = 1
GRID = 48  # exponents tried per round, log-spaced
ROUNDS = 6  # each round looks between the neighbours of the best exponent


class NotTestable(ValueError):
    """The data cannot answer the question; the message says why."""


@dataclass(frozen=True)
class Fit:
    """A fitted law.

    objective: weighted sum of squared residuals. n: points. distinct: different inputs. x_range: (lowest, highest) of
    the first input. warnings: what a reader must know, such as an exponent at its bound.
    """

    form: object
    params: Mapping
    objective: float
    n: int
    distinct: int
    r2: float
    x_range: tuple
    warnings: tuple = ()

    def __getitem__(self, name):
        return self.params[name]

    def predict(self, columns):
        """The law at `columns`, a mapping or frame with the form's inputs."""
        return self.form.predict(self.params, columns)


def fit(form, data, y="loss", weights=None):
    """The least-squares fit of `form`: minimises sum_i w_i (y_i - form(x_i))^2 within the form's bounds.

    Args:
      data: mapping or frame with the form's inputs and `y`, or a pandas Series of y indexed by the form's one input.
      weights: array [n]; None weighs all alike.
    Raises:
      NotTestable: no degree of freedom (as many distinct inputs as parameters, or fewer). ValueError: values that no law has.
    Source: variable projection, Golub and Pereyra 1973.
    """
    if hasattr(data, "index") and not hasattr(data, "columns") and not isinstance(data, Mapping):
        data = {form.inputs[0]: data.index.to_numpy(), y: data.to_numpy()}
    columns = {name: _column(form, data, name) for name in (*form.inputs, y)}
    target = columns.pop(y)
    n = len(target)
    distinct = len({tuple(row) for row in zip(*columns.values(), strict=True)})
    if distinct <= len(form.params):
        raise NotTestable(
            f"no degree of freedom: {form.name} has {len(form.params)} parameters and there are {distinct} distinct {', '.join(form.inputs)}; needs {len(form.params) + 1}"
        )
    w = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (n,) or not np.isfinite(w).all() or (w < 0).any() or not w.any():
        raise ValueError(f"weights: expected {n} finite numbers, none negative and not all zero")
    params = _project(form, columns[form.inputs[0]], target, w) if form.exponent else _search(form, columns, target, w)
    residual = target - form.predict(params, columns)
    total = float((w * (target - np.average(target, weights=w)) ** 2).sum())
    objective = float((w * residual**2).sum())
    first = columns[form.inputs[0]]
    return Fit(
        form,
        params,
        objective,
        n,
        distinct,
        1 - objective / total if total else float("nan"),
        (float(first.min()), float(first.max())),
        _warnings(form, params),
    )


def to_json(found, group="", ci95=None):
    """A fit as an entry of fit.json: plain types; `ci95` maps a parameter to (low, high), None where unknown."""
    ci95 = {name: None if ends is None else [float(e) for e in ends] for name, ends in (ci95 or {}).items()}
    return {
        "law": found.form.name,
        "equation": found.form.equation,
        "group": group,
        "loss_kind": "least squares",
        "n": found.n,
        "objective": found.objective,
        "params": {name: float(value) for name, value in found.params.items()},
        "ci95": ci95,
        "r2": found.r2,
        "x_range": list(found.x_range),
        "warnings": list(found.warnings),
    }


def parabola_minimum(means, reach=2):
    """Where a parabola in log x, through the lowest of `means` and `reach` points either side, is lowest.

    Args:
      means: pandas Series of losses indexed by x > 0, ascending.
    Raises:
      NotTestable: the lowest mean is at an edge of the grid, or the points do not bend upwards around it.
    """
    x, y = np.log(means.index.to_numpy(np.float64)), means.to_numpy(np.float64)
    lowest = int(y.argmin())
    if lowest in (0, len(y) - 1):
        raise NotTestable(f"the lowest mean is at the edge of the grid, {np.exp(x[lowest]):.4g}")
    near = slice(max(0, lowest - reach), lowest + reach + 1)
    a, b, _ = np.polyfit(x[near], y[near], 2)
    if not a > 0 or not x[near][0] <= -b / (2 * a) <= x[near][-1]:
        raise NotTestable("the means do not bend upwards around the lowest")
    return float(np.exp(-b / (2 * a)))


def _column(form, data, name):
    try:
        values = np.asarray(data[name], np.float64)
    except KeyError:
        raise ValueError(f"{form.name} needs a column {name!r}; the data have {', '.join(map(str, data))}") from None
    bad = np.flatnonzero(~np.isfinite(values) | (values <= 0))
    if bad.size:
        raise ValueError(f"{name} = {values[bad[0]]} in row {bad[0]}: {form.name} takes finite numbers above zero")
    return values


def _project(form, x, y, w):
    """Variable projection over the exponent, by a grid that zooms in."""
    offset, scale, exponent = form.params
    middle = np.exp(np.log(x).mean())  # x in units of its middle keeps the two columns of one size
    z, low, high = np.log(x / middle), *form.bounds[exponent]
    ends = np.log([low, high])
    for _ in range(ROUNDS):
        grid = np.exp(np.linspace(*ends, GRID))
        loss, e, a = _inner(np.exp(-grid[:, None] * z), y, w)
        best = int(loss.argmin())
        ends = np.log([grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]])
    alpha = float(grid[best])
    return {offset: float(e[best]), scale: float(a[best] * middle**alpha), exponent: alpha}


def _inner(basis_GN, y, w):
    """Best non-negative (offset, scale) for each exponent of the grid: objective, offset, scale [G]."""
    s, sy = w.sum(), (w * y).sum()
    sx, sxx, sxy = basis_GN @ w, basis_GN**2 @ w, basis_GN @ (w * y)
    with np.errstate(divide="ignore", invalid="ignore"):
        a = (s * sxy - sx * sy) / (s * sxx - sx**2)
    e = (sy - a * sx) / s
    a, e = np.where(e < 0, sxy / sxx, a), np.maximum(e, 0.0)  # the floor of a loss is not below zero
    flat = ~(a > 0)  # rises with x, or singular: a constant is the best that is allowed
    a, e = np.where(flat, 0.0, a), np.where(flat, sy / s, e)
    return ((y - e[:, None] - a[:, None] * basis_GN) ** 2 * w).sum(1), e, a


def _search(form, columns, y, w):
    """Bounded least squares by SciPy from starts on a grid within the bounds."""
    from scipy.optimize import least_squares

    low, high = (np.array([form.bounds[name][i] for name in form.params], np.float64) for i in (0, 1))
    root = np.sqrt(w)
    residual = lambda v: root * (y - form.predict(dict(zip(form.params, v, strict=True)), columns))
    starts = itertools.product(*[_starts(a, b, y) for a, b in zip(low, high, strict=True)])
    best = None
    for start in starts:
        if not np.isfinite(residual(np.array(start))).all():
            continue
        found = least_squares(residual, start, bounds=(low, high), xtol=1e-12, ftol=1e-12, gtol=1e-12)
        if found.success and (best is None or found.cost < best.cost):
            best = found
    if best is None:
        raise NotTestable(f"{form.name} converged from no start; give narrower bounds")
    return {name: float(v) for name, v in zip(form.params, best.x, strict=True)}


def _starts(low, high, y):
    """Three starts for a parameter; a side without a bound takes its scale from the data."""
    low = low if np.isfinite(low) else -2 * np.abs(y).max()
    high = high if np.isfinite(high) else max(2 * np.abs(y).max(), low + 1)
    return low + (high - low) * np.array([0.1, 0.4, 0.8])


def _warnings(form, params):
    out = []
    for name in form.params:
        low, high = form.bounds[name]
        for end in (low, high):
            if np.isfinite(end) and abs(params[name] - end) <= 1e-6 * max(abs(end), 1e-6):
                out.append(f"{name} is at its bound {end:g}")
    return tuple(out)
