"""Forms of scaling laws: small pure functions with named, bounded parameters, each with its equation and source.

A form is data: `fit.fit(form, frame)` fits it, your own needs no registration. Parameters carry the papers' names.
Losses are in nats per token; N are parameters, D tokens, K members of an ensemble.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from scaling_jax.laws.fit import NotTestable

EXPONENTS = (0.01, 5.0)  # beyond these a few points over a decade or two cannot tell an exponent from a constant or a step


@dataclass(frozen=True)
class Form:
    """A law y = function(params, columns).

    Args:
      inputs: columns it needs. params: names, in order.
      function: (params: name -> float, columns: name -> array [n]) -> array [n].
      bounds: name -> (lowest, highest) of each parameter.
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

    def __hash__(self):
        return hash((self.name, self.equation, self.params))

    def predict(self, params, columns):
        """The law at `columns` (a mapping or frame of arrays [n]): float64 [n]."""
        return np.asarray(self.function(params, {name: np.asarray(columns[name], np.float64) for name in self.inputs}), np.float64)


def offset_power(name, x, params, source):
    """The form `offset + scale / x ** exponent` with its own names: all parameters non-negative."""
    offset, scale, exponent = params
    return Form(
        name=name,
        equation=f"L({x}) = {offset} + {scale} / {x}^{exponent}",
        inputs=(x,),
        params=params,
        function=lambda p, columns: p[offset] + p[scale] * columns[x] ** -p[exponent],
        bounds={offset: (0.0, np.inf), scale: (0.0, np.inf), exponent: EXPONENTS},
        exponent=exponent,
        source=source,
    )


power = offset_power("power", "params", ("E", "A", "alpha"), "arXiv:2203.15556, eq. 2 at infinite data; arXiv:2509.14786")
data_power = offset_power("data_power", "tokens", ("E", "B", "beta"), "arXiv:2203.15556, eq. 2 at infinite size; arXiv:2509.14786")
ensemble = offset_power("ensemble", "members", ("C", "A", "b"), "arXiv:2509.14786: loss of K averaged models of one size")


def data_efficiency(law, loss, most=16.0):
    """Tokens at which a fitted `data_power` law reaches `loss`: D = (B / (loss - E)) ** (1 / beta).

    Args:
      most: how far beyond the fitted tokens, as a factor, an answer is still given.
    Raises:
      NotTestable: the loss lies below the law's floor, or the answer too far outside the fitted range.
    Source: arXiv:2509.14786, section on data efficiency.
    """
    gap = loss - law["E"]
    if not gap > 0:
        raise NotTestable(f"the reference law's floor is {law['E']:.4g}, it never reaches {loss:.4g}; it needs more unique-data budgets")
    tokens = (law["B"] / gap) ** (1.0 / law["beta"])
    low, high = law.x_range
    if not low / most <= tokens <= high * most:
        raise NotTestable(
            f"the reference law would need {tokens:.3g} tokens, more than {most:g} times outside its data ({low:.3g} to {high:.3g})"
        )
    return float(tokens)
