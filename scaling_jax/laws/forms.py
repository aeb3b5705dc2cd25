"""Forms of scaling laws: small pure functions with named, bounded parameters, each with its equation and source.

A form is data: `fit.fit(form, frame)` fits it, your own needs no registration. Parameters carry the papers' names.
Losses are in nats per token; N are parameters, D tokens, K members of an ensemble.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from scaling_jax.laws.fit import NotTestable, fit

EXPONENTS = (0.01, 5.0)  # beyond these a few points over a decade or two cannot tell an exponent from a constant or a step


@dataclass(frozen=True)
class Form:
    """A law y = function(params, columns).

    Args:
      inputs: columns it needs. params: names, in order.
      function: (params: name -> float, columns: name -> array [n]) -> array [n].
      bounds: name -> (lowest, highest) of each parameter.
      linear: parameters that the function is linear in, all at once: a fit solves them for instead of searching.
      positive: whether the inputs and y must lie above zero, as wherever a power or a logarithm is taken of them.
      exponent: of the forms `offset + scale * x ** -exponent`, the exponent's name; params then are (offset, scale,
        exponent), inputs is (x,), and the fit solves the first two in closed form.
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
    positive: bool = True

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
        for name in (*self.linear, *((self.exponent,) if self.exponent else ())):
            if name not in self.params:
                raise ValueError(f"form {self.name}: {name!r} is not one of its params {self.params}")

    def __hash__(self):
        return hash((self.name, self.equation, self.params))

    def predict(self, params, columns):
        """The law at `columns` (a mapping or frame of arrays [n]): float64 [n]."""
        return np.asarray(self.function(params, {name: np.asarray(columns[name], np.float64) for name in self.inputs}), np.float64)


def offset_power(name, x, params, source, exponents=EXPONENTS):
    """The form `offset + scale / x ** exponent` with its own names: offset and scale non-negative, the exponent within `exponents`."""
    offset, scale, exponent = params
    return Form(
        name=name,
        equation=f"L({x}) = {offset} + {scale} / {x}^{exponent}",
        inputs=(x,),
        params=params,
        function=lambda p, columns: p[offset] + p[scale] * columns[x] ** -p[exponent],
        bounds={offset: (0.0, np.inf), scale: (0.0, np.inf), exponent: exponents},
        exponent=exponent,
        source=source,
        linear=(offset, scale),
    )


power = offset_power("power", "params", ("E", "A", "alpha"), "arXiv:2203.15556, eq. 2 at infinite data; arXiv:2509.14786")
data_power = offset_power("data_power", "tokens", ("E", "B", "beta"), "arXiv:2203.15556, eq. 2 at infinite size; arXiv:2509.14786")
# Averaging K independent members gains 1/K to first order, and the paper finds b near 1. A slower law than K ** -0.25 cannot be told from
# a constant over a handful of members, and its limit would be far below every loss seen.
ensemble = offset_power("ensemble", "members", ("C", "A", "b"), "arXiv:2509.14786: loss of K averaged models of one size", (0.25, 4.0))


def joint_limit(data, y="loss"):
    """The double limit lim_N lim_K of an ensemble's loss: `ensemble` fitted at each N, then `power` to its limits C.

    L(N, K) -> C_N = lim_K L(N, K) -> E = lim_N C_N

    Args:
      data: mapping or frame of columns params (N), members (K) and y; rows of one (N, K) are averaged first.
    Returns:
      (N -> Fit of `ensemble`, Fit of `power` to the limits): `limits[N]["C"]` and `law["E"]`.
    Raises:
      NotTestable: too few K at some N, which the message names, or too few N.
    Source: arXiv:2509.14786, section on the joint scaling recipe.
    """
    size, members, loss = (np.asarray(data[name], np.float64) for name in ("params", "members", y))
    limits = {}
    for one in np.unique(size).tolist():
        ks, inverse, counts = np.unique(members[size == one], return_inverse=True, return_counts=True)
        try:
            limits[one] = fit(ensemble, {"members": ks, "loss": np.bincount(inverse, loss[size == one]) / counts})
        except NotTestable as error:
            raise NotTestable(f"at params = {one:g}: {error}") from error
    return limits, fit(power, {"params": list(limits), "loss": [law["C"] for law in limits.values()]})


def data_efficiency(law, loss, most=16.0, tokens=1.0):
    """How many times `tokens` a fitted `data_power` law needs to reach `loss`: D / tokens, D = (B / (loss - E)) ** (1 / beta).

    Args:
      most: how far beyond the fitted tokens, as a factor, an answer is still given.
      tokens: those that `loss` took; left at 1 the answer is D itself.
    Raises:
      NotTestable: the loss lies at or below the law's floor, or D too far outside the fitted range.
    Source: arXiv:2509.14786, section on data efficiency.
    """
    gap = loss - law["E"]
    if not gap > 0:
        raise NotTestable(f"the reference law's floor is {law['E']:.4g}, it never reaches {loss:.4g}; it needs more unique-data budgets")
    with np.errstate(over="ignore"):
        needed = np.float64(law["B"] / gap) ** (1.0 / law["beta"])
    low, high = law.x_range
    if not low / most <= needed <= high * most:
        raise NotTestable(
            f"the reference law would need {needed:.3g} tokens, more than {most:g} times outside its data ({low:.3g} to {high:.3g})"
        )
    return float(needed / tokens)
