"""What is made of fitted laws: limits, optima, and how much more data, or compute, another recipe would need."""

import numpy as np

from scaling_jax.laws import forms
from scaling_jax.laws.fitting import fit
from scaling_jax.laws.form import NotTestable


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
            limits[one] = fit(forms.ensemble, {"members": ks, "loss": np.bincount(inverse, loss[size == one]) / counts})
        except NotTestable as error:
            raise NotTestable(f"at params = {one:g}: {error}") from error
    return limits, fit(forms.power, {"params": list(limits), "loss": [law["C"] for law in limits.values()]})


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


def effective_data(law, loss, tokens, most=16.0):
    """The speed-up of a recipe that reached `loss` with `tokens`, against the recipe whose `data_power` law this is: D_eff / D.

    Source: arXiv:2509.02046, section on speed-up: D_eff = ((L - E) / B) ** (-1 / beta), there with D in multiples of 20 N.
    """
    return data_efficiency(law, loss, most, tokens)


def compute_optimal(params, compute):
    """N_opt and D_opt of a `chinchilla` law at `compute` FLOPs: N = G (C / 6)^(beta / (alpha + beta)), D = C / (6 N).

    G = (alpha A / (beta B))^(1 / (alpha + beta)). Takes a Fit, or names -> numbers or arrays of one shape.
    Source: arXiv:2203.15556, eq. 4.
    """
    a, b, A, B = (np.asarray(params[name], np.float64) for name in ("alpha", "beta", "A", "B"))
    with np.errstate(all="ignore"):
        size = (a * A / (b * B)) ** (1 / (a + b)) * (np.asarray(compute, np.float64) / 6) ** (b / (a + b))
        return size, compute / (6 * size)


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


def extrapolation(found, columns):
    """How far beyond the fitted points each input of `columns` lies: name -> largest factor, of those above 1; compute too, as N D.

    A factor counts in both directions: ten times the largest, or a tenth of the smallest. Inputs that are not positive are left out.
    """
    fitted = {name: values for name, values in found.points.columns.items() if (values > 0).all()}
    at = {name: np.atleast_1d(np.asarray(columns[name], np.float64)) for name in fitted}
    if {"params", "tokens"} <= set(fitted):
        fitted["compute"], at["compute"] = fitted["params"] * fitted["tokens"], at["params"] * at["tokens"]
    factors = {name: max((at[name] / values.max()).max(), (values.min() / at[name]).max()) for name, values in fitted.items()}
    return {name: float(factor) for name, factor in factors.items() if factor > 1 + 1e-9}
