"""Where a search for a law's parameters starts: a grid over the curved ones, the linear ones solved for at every point of it."""

import itertools

import numpy as np

COUNT = {1: 12, 2: 7, 3: 4}  # values of each curved parameter, by how many there are and nothing better is known; else 3
MOST_SUBSETS = 4  # scales of which every subset is tried at zero
MOST = 1500  # starts looked at; a finer grid is thinned evenly


def grid(form, columns, target, weights, fixed, relative):
    """Starts [S, p] within the form's bounds, in the order of its parameters.

    Args:
      columns: inputs, name -> [n]. target: y [n]. weights: [n]. fixed: parameter -> given value.
      relative: whether linear parameters are solved for least relative errors, as where residuals are of logarithms.
    """
    free = [name for name in form.params if name not in fixed]
    linear = [name for name in free if name in form.linear]
    curved = [name for name in free if name not in linear]
    axes = [_values(form, name, columns, target, len(curved)) for name in curved]
    points = list(itertools.product(*axes))  # one empty point where nothing is curved
    points = np.array(points, np.float64).reshape(len(points), len(curved))
    if len(points) > MOST:
        points = points[np.linspace(0, len(points) - 1, MOST).astype(int)]
    values = np.empty((len(points), len(form.params)))
    for i, name in enumerate(form.params):
        values[:, i] = fixed.get(name, 0.0)
        if name in curved:
            values[:, i] = points[:, curved.index(name)]
    if linear:
        values = _solve_linear(form, columns, target, weights, values, linear, relative)
    return values[np.isfinite(values).all(1)]


def linear(form, columns, target):
    """Parameters with an open end that the law is linear in, all at once, found by second differences at two places."""
    rng = np.random.default_rng(0)
    open_ended = [name for name in form.params if not np.isfinite(form.bounds[name]).all()]
    places = []
    for _ in range(2):
        share = rng.uniform(0.2, 0.8, len(form.params))
        places.append([1.0 + s if name in open_ended else low + s * (high - low) for s, name, (low, high) in _with_ends(form, share)])

    def differences(first, second):
        """f(a + 1, b + 1) - f(a + 1, b) - f(a, b + 1) + f(a, b), relative to f: nothing where f is linear in both at once."""
        for place in places:
            at = {name: np.array([[value]]) for name, value in zip(form.params, place, strict=True)}
            move = lambda *names, at=at: form.function({n: v + names.count(n) for n, v in at.items()}, columns)
            with np.errstate(all="ignore"):
                f = [np.asarray(move(*names), np.float64) for names in ((first, second), (first,), (second,), ())]
                yield np.abs(f[0] - f[1] - f[2] + f[3]).max() / max(float(np.abs(f).max()), np.finfo(float).tiny)

    out: list = []
    for name in open_ended:
        if all(d < 1e-9 for other in (name, *out) for d in differences(name, other)):
            out.append(name)
    return tuple(out)


def _with_ends(form, share):
    return [(s, name, form.bounds[name]) for s, name in zip(share, form.params, strict=True)]


def _values(form, name, columns, target, curved):
    """Values tried of one curved parameter."""
    low, high = form.bounds[name]
    if name in form.starts:
        given = form.starts[name]
        values = np.asarray(given(columns) if callable(given) else given, np.float64)
        return np.clip(values, low, high)
    count = COUNT.get(curved, 3)
    low = low if np.isfinite(low) else -2 * np.abs(target).max()
    high = high if np.isfinite(high) else max(2 * np.abs(target).max(), low + 1)
    share = (np.arange(count) + 0.5) / count
    return low * (high / low) ** share if low > 0 and high > 10 * low else low + (high - low) * share


def _solve_linear(form, columns, target, weights, values, linear, relative):
    """`values` [S, p] with the linear parameters at their least-squares values, none below a lower bound of zero.

    Of at most a handful of parameters with that bound every subset may be the one that is positive: all are tried, the best kept.
    """
    target = target if form.link is None else np.asarray(form.link(target), np.float64)
    with np.errstate(all="ignore"):
        at_zero = _at(form, columns, values)
        basis = np.stack([_at(form, columns, values, name) - at_zero for name in linear], -1)  # [S, n, k]
        small = np.finfo(float).tiny
        root = np.sqrt(weights) / (np.abs(target) if relative else 1.0)  # least squares of logarithms: relative errors
        basis, wanted = basis * root[:, None], (target - at_zero) * root
        size = np.abs(basis).max(1)  # columns of one size: N ** -alpha of a billion is tiny
        usable = np.isfinite(basis).all((1, 2)) & (size > small).all(1)
    basis, wanted, size = basis[usable] / size[usable][:, None, :], wanted[usable], size[usable]
    lows = np.array([form.bounds[name][0] for name in linear])
    optional = np.flatnonzero(lows == 0)
    best, lowest = np.zeros((len(basis), len(linear))), np.full(len(basis), np.inf)
    if len(optional) > MOST_SUBSETS:  # too many subsets to try: starts from all of them, negative ones at zero
        gram = np.matmul(basis.transpose(0, 2, 1), basis) + 1e-13 * np.eye(len(linear))
        best = np.linalg.solve(gram, np.matmul(basis.transpose(0, 2, 1), wanted[..., None]))[..., 0]
        optional = optional[:0]
        lowest[:] = -np.inf
    for count in range(len(optional) + 1):
        for zero in itertools.combinations(optional, count):
            kept = [i for i in range(len(linear)) if i not in zero]
            solved = np.zeros_like(best)
            if kept:
                part = basis[..., kept]
                gram = np.matmul(part.transpose(0, 2, 1), part) + 1e-13 * np.eye(len(kept))
                solved[:, kept] = np.linalg.solve(gram, np.matmul(part.transpose(0, 2, 1), wanted[..., None]))[..., 0]
            cost = ((wanted - np.matmul(basis, solved[..., None])[..., 0]) ** 2).sum(1)
            better = (cost < lowest) & (solved >= np.where(lows == 0, 0.0, -np.inf)).all(1)
            best, lowest = np.where(better[:, None], solved, best), np.where(better, cost, lowest)
    out = values[usable]
    for i, name in enumerate(linear):
        low, high = form.bounds[name]
        scale = np.abs(target).max() / size[:, i]
        given = best[:, i] / size[:, i]
        # exactly zero has no logarithm: a start just above it can still grow
        out[:, form.params.index(name)] = np.clip(np.where((low == 0) & (given <= 0), 1e-3 * scale, given), low, high)
    return out


def _at(form, columns, values, one=None):
    named = {name: values[:, i : i + 1] for i, name in enumerate(form.params)}
    if one is not None:
        named[one] = np.ones_like(named[one])
    y = form.function(named, columns)
    return np.asarray(
        np.broadcast_to(y if form.link is None else form.link(y), (len(values), len(next(iter(columns.values()))))), np.float64
    )
