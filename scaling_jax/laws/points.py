"""The points a law is fitted to, checked, and its residuals as the solver sees them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scaling_jax.laws import solve
from scaling_jax.laws.form import STEP, Form, NotTestable, double

TINY = 1e-290  # a scale's logarithm is searched from here up


@dataclass(frozen=True)
class Points:
    """What a law was fitted to, checked: inputs, target, weights [n] each in float64, `rows` [n] their positions in the data given.

    clusters: label of each point's cluster [n], points that share one being no independent observations; None: all are.
    """

    columns: Mapping
    target: np.ndarray
    weights: np.ndarray
    rows: np.ndarray
    clusters: np.ndarray | None = None

    def __len__(self):
        return len(self.target)

    def thinned(self, most):
        """At most `most` of the points, spread evenly over the targets; the points themselves where there are no more."""
        if len(self) <= most:
            return self
        at = np.argsort(self.target, kind="stable")[np.linspace(0, len(self) - 1, most).astype(int)]
        return Points({name: values[at] for name, values in self.columns.items()}, self.target[at], self.weights[at], self.rows[at])


@dataclass(frozen=True)
class Problem:
    """A law's residuals as the solver sees them: scales by their logarithm, everything else as it is."""

    form: Form
    points: Points
    loss: str
    delta: float
    fixed: Mapping

    @cached_property
    def logarithmic(self):
        """Which parameters are searched by their logarithm: those from zero up without an end, [p] bool."""
        return np.array([low >= 0 and np.isinf(high) for low, high in (self.form.bounds[name] for name in self.form.params)])

    @cached_property
    def free(self):
        return np.array([name not in self.fixed for name in self.form.params])

    @cached_property
    def box(self):
        """Ends of the search, low [p] and high [p]."""
        ends = np.array([self.form.bounds[name] for name in self.form.params], np.float64).T
        with np.errstate(divide="ignore"):
            return tuple(np.where(self.logarithmic, np.log(np.maximum(end, TINY)), end) for end in ends)

    def link(self, y):
        """What residuals are taken after."""
        if self.form.link is not None:
            return self.form.link(y)
        return y if self.loss == "lsq" else np.log(np.maximum(y, np.finfo(np.float64).tiny))

    def encode(self, values):
        """Parameters [B, p] as the search sees them."""
        return np.where(self.logarithmic, np.log(np.maximum(values, TINY)), values)

    def decode(self, x):
        """The inverse of `encode`; what sits at the end of its range is zero."""
        with np.errstate(over="ignore"):
            values = np.where(self.logarithmic, np.exp(x), x)
        values = np.where(self.logarithmic & (x <= np.log(TINY)), 0.0, values)
        return values if self.free.all() else np.where(self.free, values, [self.fixed.get(name, 0.0) for name in self.form.params])

    def named(self, x):
        """One set of parameters x [p] by name."""
        return dict(zip(self.form.params, map(float, self.decode(x)), strict=True))

    def residual(self, x, which=None):
        """link(law) - link(y) [B, n] and its derivatives by x [B, n, p]."""
        values = self.decode(x)
        r, slopes = self.plain(values)
        slopes *= np.where(self.logarithmic, values, 1.0)[:, None, :]
        return r, slopes

    def plain(self, values):
        """link(law) - link(y) [B, n] and its derivatives by the parameters themselves [B, n, p]; parameters [B, p]."""
        y, slopes = self.form.derivatives(values, self.points.columns)
        if self.form.link is not None:
            with double():
                chain = np.imag(self.form.link(y + 1j * STEP)) / STEP
            slopes *= chain[..., None]
        elif self.loss != "lsq":
            slopes /= y[..., None]
        return self.link(y) - self.link(self.points.target), slopes

    def minimise(self, start, weights=None, free=None, **options):
        """solve.minimise from `start` [B, p], with these weights [B, n] instead of the points' own."""
        low, high = self.box
        weights = self.points.weights if weights is None else weights
        free = self.free if free is None else free
        return solve.minimise(self.residual, start, low, high, weights, self.delta, free, **options)


def gather(form, data, where, weights, y, loss, clusters=None):
    """The checked rows that count."""
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
    keep = w > 0
    for name, value in (where or {}).items():
        keep &= np.isin(np.asarray(_column(form, data, name)), value if isinstance(value, (list, tuple)) else [value])
    rows = np.flatnonzero(keep)
    columns, w = {name: values[rows] for name, values in columns.items()}, w[rows]
    for name, values in columns.items():
        above = form.must_be_positive(name) if name != y else loss != "lsq" or (form.positive is True and not form.signed)
        wrong = ~np.isfinite(values) | (values <= 0) if above else ~np.isfinite(values)
        if wrong.any():
            first = int(wrong.argmax())
            kind = NotTestable if name == y and not np.isfinite(values[first]) else ValueError  # a run that diverged is no mistake
            raise kind(
                f"{name} = {values[first]} in row {rows[first]}: {form.name} takes finite numbers{' above zero' if above else ''}; drop the row"
            )
    target = columns.pop(y)
    if form.link is not None and not np.isfinite(np.asarray(form.link(target))).all():
        first = int((~np.isfinite(np.asarray(form.link(target)))).argmax())
        raise ValueError(f"{y} = {target[first]} in row {rows[first]}: outside the range of the link of {form.name}; drop the row")
    if clusters is not None:
        clusters = np.asarray(clusters)
        if clusters.shape != (keep.size,):
            raise ValueError(f"clusters: expected {keep.size} labels, one per row of data, got shape {clusters.shape}")
        clusters = clusters[rows]
    return Points(columns, target, w, rows, clusters)


def _column(form, data, name):
    try:
        return data[name]
    except KeyError:
        raise ValueError(f"{form.name} needs a column {name!r}; the data have {', '.join(map(str, data))}") from None
