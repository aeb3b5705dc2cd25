"""What a scaling law is here: a small pure function with named, bounded parameters, and its exact derivatives."""

import contextlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

STEP = 1e-30  # of complex differentiation: no subtraction, so no cancellation however small it is
NEAR = 1e-6  # of the central differences that check it, relative
LOSSES = ("lsq", "log", "huber")
OWN = "the user's own"  # source of a law made of a plain function


class NotTestable(ValueError):
    """The data cannot answer the question; the message says why."""


@dataclass(frozen=True)
class Form:
    """A law y = function(params, columns).

    Args:
      inputs: columns it needs. params: names, in order. y: the column it predicts.
      function: (params: name -> float or array [B, 1], columns: name -> array [n]) -> array [n] or [B, n], of plain arithmetic and
        NumPy functions that are analytic (no abs, no comparison of parameters): its derivatives are taken along the imaginary axis.
      bounds: name -> (lowest, highest) of each parameter.
      linear: parameters that the function, after its link, is linear in, all at once: their starts are solved for.
      positive: whether the inputs and y must lie above zero, as wherever a power or a logarithm is taken of them; or the names of the
        inputs that must. signed: whether y may be zero or below even so.
      exponent: of the forms `offset + scale * x ** -exponent`, the exponent's name; params then are (offset, scale,
        exponent), inputs is (x,), and a least-squares fit solves the first two in closed form.
      partials: (params, columns) -> (y, {name: dy / dname}), where a hand-written derivative is worth its lines; else None.
      starts: name -> values a search starts from, for parameters whose scale the bounds do not tell.
      loss: how it is fitted unless asked otherwise: "lsq", "log" (least squares of ln y) or "huber" (Huber of ln y).
      link: function that least squares are taken after, on y and prediction alike, where the paper fits so; None: none.
    """

    name: str
    equation: str
    inputs: tuple[str, ...]
    params: tuple[str, ...]
    function: Callable
    bounds: Mapping
    exponent: str | None = None
    source: str = ""
    linear: tuple[str, ...] = ()
    positive: bool | tuple = True
    signed: bool = False
    partials: Callable | None = None
    starts: Mapping = field(default_factory=dict)
    loss: str = "lsq"
    link: Callable | None = None
    y: str = "loss"

    def __post_init__(self):
        if not self.inputs or not self.params:
            raise ValueError(f"form {self.name}: inputs = {self.inputs!r}, params = {self.params!r}: needs one of each at least")
        if set(self.bounds) != set(self.params):
            raise ValueError(
                f"form {self.name}: bounds are of {sorted(self.bounds)}, expected one (lowest, highest) each for {self.params}"
            )
        for name, (low, high) in self.bounds.items():
            if not low < high:
                raise ValueError(f"form {self.name}: bounds of {name} = {(low, high)}: the first must lie below the second")
        for name in (*self.linear, *self.starts, *((self.exponent,) if self.exponent else ())):
            if name not in self.params:
                raise ValueError(f"form {self.name}: {name!r} is not one of its params {self.params}")
        if self.loss not in LOSSES:
            raise ValueError(f"form {self.name}: loss = {self.loss!r}, expected one of {', '.join(LOSSES)}")

    def __hash__(self):
        return hash((self.name, self.equation, self.params))

    def predict(self, params, columns):
        """The law at `columns` (a mapping or frame of arrays [n]): float64 [n]."""
        with double():
            values = self.function(params, {name: np.asarray(columns[name], np.float64) for name in self.inputs})
        return np.asarray(values, np.float64)

    def derivatives(self, values, columns):
        """The law and its derivatives by every parameter, for B sets of parameters at once.

        Args:
          values: float64 [B, p], in the order of `params`. columns: name -> float64 [n].
        Returns:
          y [B, n] and dy/dparams [B, n, p]; exact to rounding: by hand, or Im f(p + i h) / h with h = 1e-30.
        """
        n, (sets, count) = len(next(iter(columns.values()))), values.shape
        named = {name: values[:, i : i + 1] for i, name in enumerate(self.params)}
        slopes = np.empty((sets, n, count))
        if self.partials is not None:
            y, by_name = self.partials(named, columns)
            for i, name in enumerate(self.params):
                slopes[..., i] = by_name[name]
            return np.broadcast_to(y, (sets, n)), slopes
        with double():
            y = np.broadcast_to(np.asarray(self.function(named, columns), np.float64), (sets, n))
            for i, name in enumerate(self.params):
                slopes[..., i] = np.imag(self.function({**named, name: named[name] + 1j * STEP}, columns)) / STEP
        return y, slopes

    def must_be_positive(self, name):
        """Whether the input `name` must lie above zero."""
        return name in self.positive if isinstance(self.positive, tuple) else self.positive

    def check_derivatives(self, values, columns):
        """Raises ValueError when the derivatives at `values` [B, p] are not those of the function, as of one that takes abs or casts."""
        _, slopes = self.derivatives(values, columns)
        for i, name in enumerate(self.params):
            step = NEAR * np.maximum(np.abs(values[:, i : i + 1]), NEAR)
            sides = [{p: values[:, j : j + 1] + (j == i) * sign * step for j, p in enumerate(self.params)} for sign in (1, -1)]
            with double():
                above, below = (np.asarray(self.function(side, columns), np.float64) for side in sides)
                size = np.abs(above).max()
            numeric = (above - below) / (2 * step)
            off = np.abs(slopes[..., i] - numeric) > 1e-4 * np.abs(numeric) + 1e-8 * size / step
            if (off & np.isfinite(numeric)).any():
                raise ValueError(
                    f"form {self.name}: its derivative by {name} is not that of its function, which has to be analytic: plain arithmetic and "
                    f"np.exp, np.log, np.power, no abs, max, where or float(); or give `partials`"
                )


def as_form(law):
    """`law` itself if it is a Form; a plain function becomes one by its signature.

    `def law(params, tokens, *, E=(0, inf), A=(0, inf), alpha=(0.01, 5))`: positional arguments are the inputs, keyword-only ones
    the parameters with their bounds as defaults (no default: unbounded); a one-line docstring becomes the equation.
    """
    if isinstance(law, Form):
        return law
    if not callable(law):
        raise ValueError(
            f"law = {law!r}: expected a Form, or a function such as `def law(params, *, E=(0, inf), A=(0, inf), alpha=(0.01, 5))`"
        )
    inputs, bounds = [], {}
    for name, argument in inspect.signature(law).parameters.items():
        if argument.kind is argument.KEYWORD_ONLY:
            bounds[name] = (-np.inf, np.inf) if argument.default is argument.empty else _ends(law, name, argument.default)
        else:
            inputs.append(name)
    if not inputs or not bounds:
        raise ValueError(
            f"law {law.__name__}: its inputs are positional arguments, its parameters keyword-only ones (after a `*`); it needs both"
        )
    return Form(
        name=law.__name__,
        equation=(inspect.getdoc(law) or law.__name__).splitlines()[0],
        inputs=tuple(inputs),
        params=tuple(bounds),
        function=lambda p, columns: law(*(columns[name] for name in inputs), **p),
        bounds=bounds,
        positive=False,
        source=OWN,
    )


def _ends(law, name, default):
    try:
        low, high = map(float, default)
    except (TypeError, ValueError):
        raise ValueError(f"law {law.__name__}: {name} = {default!r}: expected the parameter's bounds (lowest, highest)") from None
    return low, high


def double():
    """A context in which JAX, where somebody has imported it, computes in float64: a user's law may be written with jax.numpy."""
    if "jax" not in sys.modules:
        return contextlib.nullcontext()
    import jax

    return jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64()
