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
ROUNDS = 3  # each looks for the least objective between the neighbours of the best exponent ...
ROOTS = 2  # ... and each of these for the zero of its slope, which is known to all digits, the minimum only to half
NOTHING = 1e-6  # an offset below this share of the largest y is zero
STARTS = {1: 12, 2: 7}  # values of each parameter a general search starts from, by the number of such parameters; else 3
POLISHED = 12  # starts that a general search follows to their minimum, best first, where linear parameters are solved for
SAMPLES = 1000  # most draws of the parameters that fit.json keeps


class NotTestable(ValueError):
    """The data cannot answer the question; the message says why."""


@dataclass(frozen=True)
class Fit:
    """A fitted law.

    objective: weighted sum of squared residuals, of logarithms where loss_kind says so. n: points. distinct: different
    inputs. aic: n ln(objective / n) + 2 (parameters + 1), to compare laws of one loss_kind on the same points. x_range:
    (lowest, highest) of the first input. warnings: what a reader must know, such as an exponent at its bound.
    """

    form: object
    params: Mapping
    objective: float
    n: int
    distinct: int
    r2: float
    x_range: tuple
    warnings: tuple = ()
    aic: float = float("nan")
    loss_kind: str = "least squares"

    def __getitem__(self, name):
        return self.params[name]

    def predict(self, columns=None, /, **named):
        """The law at its form's inputs: a mapping or frame, or by name as in `predict(params=1e9)`; float64, shape of the inputs."""
        return self.form.predict(self.params, named if columns is None else columns)


def fit(form, data, where=None, fixed=None, weights=None, y="loss", log=False):
    """The least-squares fit of `form`: minimises sum_i w_i (y_i - form(x_i))^2 within the form's bounds.

    Args:
      data: mapping or frame with the form's inputs and `y`, or a pandas Series of y indexed by the form's one input.
      where: column -> value, or list of values: only these rows.
      fixed: parameter -> value that is given, not fitted.
      weights: array [n], one per row of data; None weighs all alike, rows of weight 0 do not count.
      log: residuals of ln y instead of y.
    Raises:
      NotTestable: no degree of freedom (as many distinct inputs as free parameters, or fewer), or a y that is not finite, as
        of a run that diverged. ValueError: other values that no law has.
    Source: variable projection, Golub and Pereyra 1973.
    """
    fixed = _fixed(form, fixed)
    columns, w = _columns(form, data, where, weights, y, log)
    target = columns.pop(y)
    n, free = len(target), len(form.params) - len(fixed)
    distinct = len(set(zip(*(values.tolist() for values in columns.values()), strict=True)))
    if distinct <= free:
        raise NotTestable(
            f"no degree of freedom: {form.name} has {free} {'free ' if fixed else ''}parameters and there are {distinct} distinct {', '.join(form.inputs)}; needs {free + 1}"
        )
    if form.exponent and not log:
        params = _project(form, columns[form.inputs[0]], target, w, fixed)
    else:
        params = _search(form, columns, target, w, fixed, log)
    kept = _log if log else np.asarray
    residual = kept(target) - kept(form.predict(params, columns))
    around = kept(target) - np.average(kept(target), weights=w)
    objective, total = float((w * residual**2).sum()), float((w * around**2).sum())
    first = columns[form.inputs[0]]
    return Fit(
        form=form,
        params=params,
        objective=objective,
        n=n,
        distinct=distinct,
        r2=1 - objective / total if total else float("nan"),
        aic=n * float(np.log(objective / n)) + 2 * (free + 1) if objective else -np.inf,
        x_range=(float(first.min()), float(first.max())),
        warnings=_warnings(form, params, fixed, target),
        loss_kind="least squares of logarithms" if log else "least squares",
    )


def to_json(found, group="", ci95=None, samples=None, seed=None):
    """A fit as an entry of fit.json: plain types.

    Args:
      group: the rows it was fitted to, in words.
      ci95: parameter -> (low, high), None where unknown.
      samples: parameter -> draws, at most `SAMPLES`, where the intervals came from any; seed: that of the draws.
    """
    ci95 = {name: None if ends is None else [float(e) for e in ends] for name, ends in (ci95 or {}).items()}
    samples = {name: [float(v) for v in draws] for name, draws in (samples or {}).items()}
    for kind, named in (("ci95", ci95), ("samples", samples)):
        if strange := set(named) - set(found.params):
            raise ValueError(f"{kind}: {found.form.name} has no parameter {sorted(strange)[0]!r}; it has {', '.join(found.params)}")
    if most := [name for name, draws in samples.items() if len(draws) > SAMPLES]:
        raise ValueError(f"samples: {len(samples[most[0]])} draws of {most[0]}, at most {SAMPLES}; thin them")
    return {
        "schema": SCHEMA,
        "law": found.form.name,
        "equation": found.form.equation,
        "group": group,
        "loss_kind": found.loss_kind,
        "seed": seed,
        "n": found.n,
        "objective": found.objective,
        "params": {name: float(value) for name, value in found.params.items()},
        "ci95": ci95,
        "r2": found.r2,
        "x_range": list(found.x_range),
        "samples": samples,
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


def _fixed(form, fixed):
    """The given parameters as floats, checked against the form."""
    fixed = {name: float(value) for name, value in (fixed or {}).items()}
    for name, value in fixed.items():
        if name not in form.params:
            raise ValueError(f"fixed: {form.name} has no parameter {name!r}; it has {', '.join(form.params)}")
        low, high = form.bounds[name]
        if not low <= value <= high:
            raise ValueError(f"fixed: {name} = {value:g} is outside the bounds of {form.name}, {low:g} to {high:g}")
    return fixed


def _columns(form, data, where, weights, y, log):
    """Inputs and y as checked float64 arrays [n], and weights [n], of the rows that count."""
    if hasattr(data, "index") and not hasattr(data, "columns") and not isinstance(data, Mapping):
        if len(form.inputs) > 1:
            raise ValueError(f"{form.name} has the inputs {', '.join(form.inputs)}: a Series has one, give a frame")
        data = {form.inputs[0]: data.index.to_numpy(), y: data.to_numpy()}
    columns = {name: np.asarray(_column(form, data, name), np.float64) for name in (*form.inputs, y)}
    if len({values.shape for values in columns.values()}) > 1 or columns[y].ndim != 1:
        raise ValueError(f"{form.name}: expected columns of one length, got { ({k: v.shape for k, v in columns.items()}) }")
    w = np.ones(len(columns[y])) if weights is None else np.asarray(weights, np.float64)
    if w.shape != columns[y].shape or not np.isfinite(w).all() or (w < 0).any() or (w.size and not w.any()):
        raise ValueError(f"weights: expected {len(columns[y])} finite numbers, none negative and not all zero")
    if where or weights is not None:
        keep = w > 0
        for name, value in (where or {}).items():
            keep &= np.isin(np.asarray(_column(form, data, name)), value if isinstance(value, (list, tuple)) else [value])
        rows = np.flatnonzero(keep)
        columns, w = {name: values[rows] for name, values in columns.items()}, w[rows]
    else:
        rows = None
    for name, values in columns.items():
        above = form.positive or (log and name == y)
        wrong = ~np.isfinite(values) | (values <= 0) if above else ~np.isfinite(values)
        if wrong.any():
            first = int(wrong.argmax())
            row = first if rows is None else int(rows[first])
            kind = NotTestable if name == y and not np.isfinite(values[first]) else ValueError  # a run that diverged is no mistake
            raise kind(
                f"{name} = {values[first]} in row {row}: {form.name} takes finite numbers{' above zero' if above else ''}; drop the row"
            )
    return columns, w


def _column(form, data, name):
    try:
        return data[name]
    except KeyError:
        raise ValueError(f"{form.name} needs a column {name!r}; the data have {', '.join(map(str, data))}") from None


def _project(form, x, y, w, fixed):
    """Variable projection over the exponent, by a grid that zooms in."""
    offset, scale, exponent = form.params
    middle = np.exp(np.log(x).mean())  # x in units of its middle keeps the two columns of one size
    z, (low, high) = np.log(x / middle), form.bounds[exponent]
    given = fixed.get(offset), fixed.get(scale)
    if exponent in fixed:
        grid = np.array([fixed[exponent]])
        _, e, a, _ = _inner(grid, z, y, w, given, middle)
        return _named(form, e[0], a[0], grid[0], middle, fixed)
    ends = np.log([low, high])
    for _ in range(ROUNDS):
        grid = np.exp(np.linspace(*ends, GRID))
        best = int(_inner(grid, z, y, w, given, middle)[0].argmin())
        ends = np.log([grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]])
    alpha = float(grid[best])
    for _ in range(ROOTS):
        grid = np.linspace(*np.exp(ends), GRID)
        slope = _inner(grid, z, y, w, given, middle)[3]
        turns = np.flatnonzero((slope[:-1] < 0) & (slope[1:] >= 0))
        if not len(turns):  # the minimum is at a bound
            break
        i = int(turns[0])
        alpha = float(grid[i] - slope[i] * (grid[i + 1] - grid[i]) / (slope[i + 1] - slope[i]))
        ends = np.log(grid[i : i + 2])
    alpha = min(max(alpha, low), high)
    _, e, a, _ = _inner(np.array([alpha]), z, y, w, given, middle)
    if offset not in fixed and 0 < e[0] < NOTHING * np.abs(y).max():  # the slope has a kink where the offset reaches zero
        return _project(form, x, y, w, {**fixed, offset: 0.0})
    return _named(form, e[0], a[0], alpha, middle, fixed)


def _named(form, e, a, alpha, middle, fixed):
    return {**dict(zip(form.params, (float(e), float(a * middle**alpha), float(alpha)), strict=True)), **fixed}


def _inner(exponents, z, y, w, given, middle):
    """Best non-negative (offset, scale) for each exponent: objective, offset, scale, slope of the objective [G].

    given: offset and scale where they are fixed, else None. The slope is the partial derivative, all there is at a minimum
    over the other two, on a bound or inside.
    """
    basis_GN = np.exp(-exponents[:, None] * z)
    e, a = given
    s = w.sum()
    moves = z if a is None else z + np.log(middle)  # a fixed scale is one of x, not of x / middle
    if a is not None:
        a = a * middle**-exponents
        e = np.full_like(a, e) if e is not None else np.maximum((y - a[:, None] * basis_GN) @ w / s, 0.0)
    elif e is not None:
        a = np.maximum(basis_GN @ (w * (y - e)) / (basis_GN**2 @ w), 0.0)
        e = np.full_like(a, e)
    else:
        e, a = _free(basis_GN, y, w, s)
    residual = y - e[:, None] - a[:, None] * basis_GN
    return residual**2 @ w, e, a, 2 * a * ((residual * basis_GN) @ (w * moves))


def _free(basis_GN, y, w, s):
    mean_y, mean_G = w @ y / s, basis_GN @ w / s
    centred = basis_GN - mean_G[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        a = centred @ (w * (y - mean_y)) / (centred**2 @ w)
    e = mean_y - a * mean_G
    low = e < 0  # the floor of a loss is not below zero
    if low.any():
        a = np.where(low, basis_GN @ (w * y) / (basis_GN**2 @ w), a)
    flat = ~(a > 0)  # rises with x, or singular: a constant is the best that is allowed
    return np.where(flat, max(mean_y, 0.0), np.maximum(e, 0.0)), np.where(flat, 0.0, a)


def _search(form, columns, y, w, fixed, log):
    """Bounded least squares by SciPy from starts on a grid within the bounds; the form's linear parameters are solved at each start."""
    from scipy.optimize import least_squares, lsq_linear

    free = [name for name in form.params if name not in fixed]
    linear = [name for name in free if name in form.linear]
    curved = [name for name in free if name not in linear]
    bounds = lambda names: tuple(np.array([form.bounds[name][i] for name in names], np.float64) for i in (0, 1))
    root, kept = np.sqrt(w), _log if log else np.asarray

    def predict(names, values):
        return form.predict({**fixed, **dict.fromkeys(linear, 0.0), **dict(zip(names, values, strict=True))}, columns)

    residual = lambda values: root * (kept(y) - kept(predict(free, values)))
    starts = []
    for values in itertools.product(*[_starts(*form.bounds[name], y, STARTS.get(len(curved), 3)) for name in curved]):
        if linear:
            at_zero = predict(curved, values)
            basis = np.stack([predict([*curved, name], [*values, 1.0]) - at_zero for name in linear], 1)
            size = np.abs(basis).max(0)  # columns of one size: N ** -alpha of a billion is tiny
            if not (np.isfinite(basis).all() and np.isfinite(at_zero).all() and size.all()):
                continue
            low, high = bounds(linear)
            solved = lsq_linear(root[:, None] * basis / size, root * (y - at_zero), bounds=(low * size, high * size)).x / size
        named = {**dict(zip(curved, values, strict=True)), **(dict(zip(linear, solved, strict=True)) if linear else {})}
        start = np.clip([named[name] for name in free], *bounds(free))
        if np.isfinite(there := residual(start)).all():
            starts.append((float(there @ there), tuple(start)))
    best = None
    for _, start in sorted(starts)[: POLISHED if linear else None]:
        if not free:
            return dict(fixed)
        found = least_squares(residual, start, bounds=bounds(free), x_scale="jac", xtol=1e-12, ftol=1e-12, gtol=1e-12, max_nfev=400)
        if np.isfinite(found.cost) and (best is None or found.cost < best.cost):
            best = found
    if best is None:
        raise NotTestable(f"{form.name} converged from no start; give narrower bounds")
    values = {**dict(zip(free, map(float, best.x), strict=True)), **fixed}
    return {name: values[name] for name in form.params}


def _log(values):
    return np.log(np.maximum(values, np.finfo(np.float64).tiny))


def _starts(low, high, y, count):
    """Starts for a parameter, log-spaced where its bounds span decades; a side without a bound takes its scale from the data."""
    low = low if np.isfinite(low) else -2 * np.abs(y).max()
    high = high if np.isfinite(high) else max(2 * np.abs(y).max(), low + 1)
    share = (np.arange(count) + 0.5) / count
    return low * (high / low) ** share if low > 0 and high > 10 * low else low + (high - low) * share


def _warnings(form, params, fixed, y):
    out = []
    for name in form.params:
        for end in form.bounds[name] if name not in fixed else ():
            if np.isfinite(end) and abs(params[name] - end) <= 1e-6 * max(abs(end), 1e-6):
                steepest = name == form.exponent and end == form.bounds[name][1]
                why = f", so {form.params[0]} is the level of the points beyond the first" if steepest else ""
                out.append(f"{name} is at its bound {end:g}{why}")
    if form.exponent and form.params[0] not in fixed and not out:
        below, seen = y.min() - params[form.params[0]], y.max() - y.min()
        if below > seen:
            out.append(f"{form.params[0]} extrapolates: {below:.3g} below the lowest point, the points span {seen:.3g}")
    return tuple(out)
