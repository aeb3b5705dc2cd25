"""Fitting laws in float64: global search, exact gradients, and results that say when they cannot answer.

A fit starts from a grid over the law's curved parameters, its linear ones solved for, and follows the best starts to their minima
by batched Newton steps (solve.py). A least-squares fit of `offset + scale / x ** exponent` goes through variable projection instead
(projection.py), a third of a millisecond each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from scaling_jax.laws import projection, solve, starts
from scaling_jax.laws.form import LOSSES, OWN, Form, NotTestable, as_form
from scaling_jax.laws.points import TINY, Points, Problem, gather

DELTA = 1e-3  # where Huber's loss of ln y turns from squares to absolute values: arXiv:2203.15556
FOLLOWED = 24  # starts followed to their minimum, best first
GLANCED = 30  # steps after which all but the best few are dropped
GLANCED_AT = 2000  # points that starts are compared on; the best few then see them all
NOTHING = 1e-9  # a scale whose share in every prediction is smaller is zero
PULLED = 1e-6  # gradient at a bound, as a cosine, from which on the bound holds the parameter
BLURRED = 1e-7  # ratio of singular values from which on parameters cannot be told apart
FARTHEST = 1e300  # objective of a place where the law is not finite
FAR = 8.0  # robust standard deviations at which a point is named
SPARE = 6  # points beyond the parameters that it takes to call one of them an outlier
POOR = 1e-3  # r2 up to which a law is no better than a constant
KINDS = {"lsq": "least squares", "log": "least squares of logarithms", "huber": "Huber of logarithms"}


@dataclass(frozen=True, repr=False)
class Fit:
    """A fitted law.

    objective: the weighted sum of squared residuals, of logarithms where the loss is of those, or of Huber's function of them.
    n: points. distinct: different inputs. aic: n ln(objective / n) + 2 (p + 1) for p free parameters, to compare laws of one loss on
    the same points; with Huber's loss 2 n ln(mean |residual|) + 2 (p + 1), Laplace's likelihood. x_range: (lowest, highest) of the
    first input. warnings: what a reader must know, such as an exponent at its bound. converged: whether the search ended at a minimum.
    identified: whether the points determine every free parameter. points, fixed: what it was fitted to, for intervals.
    """

    form: Form
    params: Mapping
    objective: float
    n: int
    distinct: int
    r2: float
    x_range: tuple
    warnings: tuple = ()
    aic: float = float("nan")
    loss: str = "lsq"
    delta: float = np.inf
    converged: bool = True
    identified: bool = True
    fixed: Mapping = field(default_factory=dict)
    points: Points | None = field(default=None, compare=False, repr=False)

    def __repr__(self):
        values = ", ".join(f"{name} = {value:.4g}" for name, value in self.params.items())
        return f"Fit of {self.form.name}: {values} ({self.n} points, {self.loss_kind}, r2 {self.r2:.4f}{''.join('; ' + w for w in self.warnings)})"

    def __getitem__(self, name):
        return self.params[name]

    @property
    def loss_kind(self):
        """The loss in words, as fit.json says it."""
        kind = KINDS[self.loss] if self.form.link is None else f"{KINDS[self.loss]} after the law's link"
        return f"{kind}, delta {self.delta:g}" if self.loss == "huber" else kind

    @property
    def free(self):
        """Names of the parameters that were fitted."""
        return tuple(name for name in self.form.params if name not in self.fixed)

    def predict(self, columns=None, /, **named):
        """The law at its form's inputs: a mapping or frame, or by name as in `predict(params=1e9)`; float64, shape of the inputs."""
        return self.form.predict(self.params, named if columns is None else columns)

    def residuals(self):
        """What is left of each point, y - law, or the difference of logarithms where the loss is of those: float64 [n]."""
        return problem(self).link(self.points.target) - problem(self).link(self.predict(self.points.columns))

    def interval(self, quantity, level=0.95, **options):
        """The interval of a parameter or of a function of the parameters; see intervals.interval."""
        from scaling_jax.laws import intervals

        return intervals.interval(self, quantity, level, **options)

    def band(self, columns=None, /, level=0.95, kind="law", **named):
        """The band of the law, or of one new run (kind="run"), at these inputs; see intervals.band."""
        from scaling_jax.laws import intervals

        return intervals.band(self, named if columns is None else columns, level, kind)

    def plot(self, path=None):
        """A figure of points, law and band; see laws.plot."""
        from scaling_jax.laws import plot

        return plot.of_fit(self, path)


def problem(found):
    """The Problem that a Fit solved."""
    return Problem(found.form, found.points, found.loss, found.delta, found.fixed)


def fit(law, data, where=None, fixed=None, weights=None, y=None, loss=None, delta=DELTA, solver="newton", clusters=None):
    """The fit of `law` to `data`: minimises sum_i w_i rho(link(law(x_i)) - link(y_i)) within the law's bounds.

    Args:
      law: a Form, or a plain function (see form.as_form).
      data: mapping or frame with the law's inputs and `y`, or a pandas Series of y indexed by the law's one input.
      where: column -> value, or list of values: only these rows.
      fixed: parameter -> value that is given, not fitted.
      weights: array [n], one per row of data: inverse variances of link(y) up to a factor, which changes no interval and no band; None
        weighs all alike, rows of weight 0 do not count.
      y: the column predicted; None: the one the law names, "loss" for most.
      loss: "lsq" (rho = r^2, link = identity), "log" (r^2, ln) or "huber" (Huber's function with `delta`, summed, ln); None: the law's own.
      clusters: label of each row's cluster, [n], such as its seed where rows of one seed share something: intervals and bands then count
        clusters, not rows.
      solver: "newton" (solve.py), or "scipy": L-BFGS-B with the same gradients from the same starts, slower, to check the first.
    Raises:
      NotTestable: no degree of freedom (as many distinct inputs as free parameters, or fewer), an input that is the same everywhere and
        leaves parameters undetermined, or a y that is not finite, as of a run that diverged. ValueError: other values that no law has.
    """
    form = as_form(law)
    loss, delta = _loss(form, loss, delta)
    fixed = _fixed(form, fixed)
    points = gather(form, data, where, weights, form.y if y is None else y, loss, clusters)
    if form.source == OWN and not form.linear:
        form = replace(form, linear=starts.linear(form, points.columns, points.target))
    distinct = _degrees(form, fixed, points.columns)
    task = Problem(form, points, loss, delta, fixed)
    first = points.columns[form.inputs[0]]
    if form.exponent and loss == "lsq" and solver == "newton":
        params, converged = projection.project(form, first, points.target, points.weights, fixed), True
    else:
        params, converged = _search(task, solver)
    identified, blurred = _identified(task, params)
    if not identified and (same := [name for name, values in points.columns.items() if (values == values[0]).all()]):
        raise NotTestable(
            f"{same[0]} is {points.columns[same[0]][0]:g} in every row, and {blurred} of {form.name} cannot be told from such data; "
            f"vary {same[0]}, give the parameter (`fixed`), or fit a law without it"
        )
    found = Fit(form, params, 0.0, len(points), distinct, 0.0, (float(first.min()), float(first.max())))
    found = replace(found, loss=loss, delta=delta, converged=converged, identified=identified, fixed=fixed, points=points)
    found = replace(found, **_quality(found))
    return replace(found, warnings=_warnings(found, blurred))


def _loss(form, loss, delta):
    loss = form.loss if loss is None else loss
    if loss not in LOSSES:
        raise ValueError(f"loss = {loss!r}: expected one of {', '.join(LOSSES)}")
    if not 0 < delta < np.inf:
        raise ValueError(f"delta = {delta!r}: expected a positive number, the residual of ln y at which squares turn into absolute values")
    return loss, float(delta) if loss == "huber" else np.inf


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


def _degrees(form, fixed, columns):
    """The number of distinct inputs, refused where it leaves no degree of freedom."""
    distinct = len(set(zip(*(values.tolist() for values in columns.values()), strict=True)))
    free = len(form.params) - len(fixed)
    if distinct <= free:
        same = [f"{name} is {values[0]:g} in every row" for name, values in columns.items() if distinct > 1 and (values == values[0]).all()]
        raise NotTestable(
            f"no degree of freedom: {form.name} has {free} {'free ' if fixed else ''}parameters and there are {distinct} distinct {', '.join(form.inputs)}"
            f"{' (' + ' and '.join(same) + ')' if same else ''}; needs {free + 1}"
        )
    return distinct


def _search(task, solver):
    """The best parameters from all starts, and whether that search converged."""
    form, few = task.form, replace(task, points=task.points.thinned(GLANCED_AT))
    if not task.free.any():
        return dict(task.fixed), True
    with np.errstate(all="ignore"):
        relative = task.loss != "lsq" and form.link is None
        begin = starts.grid(form, few.points.columns, few.points.target, few.points.weights, task.fixed, relative)
        x = np.clip(task.encode(begin), *task.box)
        r, slopes = few.residual(x) if len(x) else (np.empty((0, 1)), np.empty((0, 1, 1)))
        cost = (few.points.weights * solve.rho(r, task.delta)).sum(1)
    usable = np.isfinite(cost) & np.isfinite(slopes).all((1, 2))
    if not usable.any():
        raise NotTestable(f"{form.name} converged from no start; give narrower bounds")
    order = np.argsort(np.where(usable, cost, np.inf), kind="stable")[: min(FOLLOWED, int(usable.sum()))]
    if form.partials is None:
        form.check_derivatives(task.decode(x[order[:1]]), few.points.columns)
    if solver == "scipy":
        return _scipy(task, x[order])
    if solver != "newton":
        raise ValueError(f"solver = {solver!r}: expected 'newton' or 'scipy'")
    glance = few.minimise(x[order], tolerance=1e-9, steps=GLANCED)
    best = np.argsort(glance.objective, kind="stable")[:4]
    solved = task.minimise(glance.x[best], steps=2000)
    at = int(np.argmin(solved.objective))
    if not np.isfinite(solved.objective[at]):
        raise NotTestable(f"{form.name} converged from no start; give narrower bounds")
    return task.named(_settle(task, solved.x[at], solved.objective[at])), bool(solved.converged[at])


def _settle(task, x, objective):
    """x with every scale whose share in all predictions is nothing at exactly zero, where the law allows that."""
    _, slopes = task.residual(x[None])
    share = np.abs(slopes[0]).max(0)
    low, _ = task.box
    for i, name in enumerate(task.form.params):
        if task.free[i] and task.logarithmic[i] and task.form.bounds[name][0] == 0 and share[i] < NOTHING * max(share.max(), TINY):
            there = x.copy()
            there[i] = low[i]
            with np.errstate(all="ignore"):
                cost = (task.points.weights * solve.rho(task.residual(there[None])[0], task.delta)).sum()
            if np.isfinite(cost) and cost <= objective * (1 + 1e-9):
                x = there
    return x


def _scipy(task, begin):
    """The same minimum by SciPy's L-BFGS-B, one start after another."""
    from scipy.optimize import minimize

    moves, w = task.free, task.points.weights
    bounds = np.array(task.box).T[moves]

    def value(free, whole):
        at = whole.copy()
        at[moves] = free
        with np.errstate(all="ignore"):
            r, slopes = task.residual(at[None])
            cost, pull = float((w * solve.rho(r, task.delta)).sum()), (w * np.clip(r[0], -task.delta, task.delta)) @ slopes[0][:, moves]
        return (cost, pull) if np.isfinite(cost) and np.isfinite(pull).all() else (FARTHEST, np.zeros(int(moves.sum())))

    best = None
    for x in begin:
        options = dict(maxiter=20000, maxfun=50000, ftol=1e-16, gtol=1e-12, maxcor=30)
        done = minimize(value, x[moves], (x,), method="L-BFGS-B", jac=True, bounds=bounds, options=options)
        if np.isfinite(done.fun) and (best is None or done.fun < best[0].fun):
            best = done, x
    if best is None:
        raise NotTestable(f"{task.form.name} converged from no start; give narrower bounds")
    x = best[1].copy()
    x[moves] = best[0].x
    return task.named(x), bool(best[0].success) or "ABNORMAL" in str(best[0].message)  # the line search ends at rounding


def _identified(task, params):
    """Whether the points determine every free parameter, and the names of those that they do not.

    A parameter at its bound is determined by it where the objective pulls it outwards; where it does not, it counts like any other.
    """
    names, w = task.form.params, task.points.weights
    values = np.array([[params[name] for name in names]])
    with np.errstate(all="ignore"):
        r, slopes = (part[0] for part in task.plain(values))
        at_one = task.plain(np.where((values == 0) & task.logarithmic, 1.0, values))[1][0]  # a scale at zero hides what it multiplies
    idle = [name for i, name in enumerate(names) if task.free[i] and not (slopes[:, i].any() or at_one[:, i].any())]
    if idle:
        return False, " and ".join(idle)
    slopes = slopes * np.sqrt(w)[:, None]
    top = np.abs(slopes).max(0)
    slopes = slopes / np.where(top > 0, top, 1.0)  # what follows asks for directions; the squares of slopes at a scale of zero overflow
    size = np.sqrt((slopes**2).sum(0))
    pull = np.sqrt(w) * np.clip(r, -task.delta, task.delta)
    ends = np.array([task.form.bounds[name] for name in names]).T
    held = ((values[0] <= ends[0]) | (values[0] >= ends[1])) & (np.abs(pull @ slopes) > PULLED * size * np.sqrt(pull @ pull))
    inside = task.free & ~held & (top > np.finfo(float).tiny)  # no slope: the exponent of a scale at zero
    if not inside.any():
        return True, ""
    kept = [name for name, one in zip(names, inside, strict=True) if one]
    _, singular, directions = np.linalg.svd(slopes[:, inside] / size[inside], full_matrices=False)
    if singular[-1] > BLURRED * singular[0]:
        return True, ""
    return False, " and ".join(name for name, part in zip(kept, np.abs(directions[-1]), strict=True) if part > 0.2)


def _quality(found):
    """objective, r2 and aic of a fit."""
    task, w = problem(found), found.points.weights
    target = task.link(found.points.target)
    residual = target - task.link(found.predict(found.points.columns))
    free, n = len(found.free), found.n
    if found.loss == "huber":
        objective = float((w * solve.rho(residual, found.delta)).sum())
        around = float((w * np.abs(target - np.median(target))).sum())
        r2 = 1 - float((w * np.abs(residual)).sum()) / around if around else float("nan")
        spread = float((w * np.abs(residual)).sum()) / n
        aic = 2 * n * float(np.log(spread)) + 2 * (free + 1) if spread else -np.inf
        return dict(objective=objective, r2=r2, aic=aic)
    around = target - np.average(target, weights=w)
    objective, total = float((w * residual**2).sum()), float((w * around**2).sum())
    aic = n * float(np.log(objective / n)) + 2 * (free + 1) if objective else -np.inf
    return dict(objective=objective, r2=1 - objective / total if total else float("nan"), aic=aic)


def _warnings(found, blurred):
    form, params, out = found.form, found.params, []
    if not found.converged:
        out.append("the search did not converge; no figure of it is final")
    if not found.identified:
        out.append(f"these points cannot tell {blurred} apart: other values fit as well")
    if found.r2 <= POOR and np.ptp(found.points.target) > 1e-9 * np.abs(found.points.target).max():
        out.append(f"no better than a constant (r2 {found.r2:.2g})")
    for name in found.free:
        for end in form.bounds[name]:
            if np.isfinite(end) and abs(params[name] - end) <= 1e-6 * max(abs(end), 1e-6):
                steepest = name == form.exponent and end == form.bounds[name][1]
                why = f", so {form.params[0]} is the level of the points beyond the first" if steepest else ""
                out.append(f"{name} is at its bound {end:g}{why}")
    target = found.points.target
    if form.exponent and form.params[0] in found.free and not out:
        below, seen = target.min() - params[form.params[0]], target.max() - target.min()
        if below > seen:
            out.append(f"{form.params[0]} extrapolates: {below:.3g} below the lowest point, the points span {seen:.3g}")
    return tuple(out + _outliers(found))


def _outliers(found):
    """Names the point that lies farthest off a robust fit, where it lies too far to be noise: least squares would follow it.

    The scale is the median of the residuals but for the p smallest: a robust fit of p parameters passes through about p points.
    """
    count = len(found.free)
    if found.n < count + SPARE or (found.form.link is not None and found.loss != "lsq"):
        return []
    task = problem(found)
    x = task.encode(np.array([[found.params[name] for name in found.form.params]]))
    residual = np.abs(task.residual(x)[0][0])
    if found.loss != "huber" and count:
        delta = 0.1 * float(np.median(residual)) or 1e-12
        robust = replace(task, delta=delta)
        few = np.argsort(residual)[: max(found.n - found.n // 5, count + 2)]  # started from a fit without the farthest fifth
        kept = np.zeros(found.n)
        kept[few] = 1.0
        begin = task.minimise(x, kept * found.points.weights).x
        residual = np.abs(task.residual(robust.minimise(begin).x)[0][0])
    spread = float(np.median(np.sort(residual)[count:])) / 0.6745
    farthest = int(residual.argmax())
    if not spread > 1e-9 * np.abs(task.link(found.points.target)).max() or residual[farthest] < FAR * spread:
        return []
    follows = "" if found.loss == "huber" else "; least squares follow it" + (", loss='huber' would not" if found.form.link is None else "")
    return [f"row {found.points.rows[farthest]} lies {residual[farthest] / spread:.0f} robust standard deviations off{follows}"]
