"""Variable projection for laws `offset + scale / x ** exponent`: thousands of fits in the time of one search.

For every exponent the other two parameters follow in closed form, so the search is over one number, global on its grid, and takes a
third of a millisecond; a null test fits thousands. Source: Golub and Pereyra 1973.
"""

import numpy as np

GRID = 48  # exponents tried per round, log-spaced
ROUNDS = 3  # each looks for the least objective between the neighbours of the best exponent ...
ROOTS = 2  # ... and each of these for the zero of its slope, which is known to all digits, the minimum only to half
NOTHING = 1e-6  # an offset below this share of the largest y is zero


def project(form, x, y, w, fixed):
    """The least-squares parameters (name -> value) of a form with `exponent`, by a grid over the exponent that zooms in.

    Args:
      x, y, w: float64 [n], inputs, targets, weights. fixed: parameter -> given value.
    """
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
        return project(form, x, y, w, {**fixed, offset: 0.0})
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
