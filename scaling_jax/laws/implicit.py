"""The Kaplan law of a whole trajectory, in which the loss stands on both sides: its solution and its derivatives.

    L = floor + e,   e = (run (1 + noise / L^rate))^alpha,   run = S_c / S,  noise = B_star / B,  rate = 1 / alpha_B

In t = ln L the function G(t) = ln(L - floor) - alpha ln(run (1 + noise e^(-rate t))) rises and bends downwards: the first term is
concave, the second convex and subtracted. So Newton's steps from any point left of the root stay left of it and reach it, whatever
the parameters; in ln e, where the slope lies between 1 and 1 + alpha rate, they can run in circles. Derivatives follow from
G = 0 by the theorem of implicit functions. Source: arXiv:2001.08361, eq. 1.6 with 5.4; arXiv:2403.06563.
"""

import numpy as np

STEPS = 80  # Newton's steps at most; over twenty decades of every input 1 to 12 are taken
EXACT = 1e-13  # a relative step of e that counts as none
LEAST = -650.0  # logarithm that stands for that of zero
STARTS = {
    "N_c": lambda x: np.median(x["params"]) * np.array([3.0, 1e3, 1e7]),
    "alpha_N": (0.06, 0.15, 0.5),
    "S_c": lambda x: np.median(x["steps"]) * np.array([0.03, 0.3]),
    "alpha_S": (0.4, 0.8, 1.5),
    "B_star": lambda x: np.median(x["batch"]) * np.array([1.0, 30.0, 1e3]),
    "alpha_B": (0.15, 0.5),
}


def loss(p, x):
    """L of `forms.trajectory` (with p["E"], of `forms.trajectory_floor`); complex parameters carry derivatives along."""
    floor, log_run, log_noise, alpha, rate = _terms(p, x)
    excess = solve(*(np.real(part) for part in (floor, log_run, log_noise, alpha, rate)))
    # A last step in ln e, where G is nearly linear, with the parameters as they are: an imaginary part is exact after one.
    total = floor + excess
    log_total = np.log(total)
    growth, share = _softplus(log_noise - rate * log_total)
    slope = 1 + alpha * rate * share * excess / total
    return floor + excess * np.exp((alpha * (log_run + growth) - np.log(excess)) / slope)


def partials(p, x):
    """(L, {parameter: dL / dparameter}) of `loss` in closed form, for Form.partials."""
    floor, log_run, log_noise, alpha, rate = _terms(p, x)
    excess = solve(floor, log_run, log_noise, alpha, rate)
    total = floor + excess
    log_total = np.log(total)
    growth, share = _softplus(log_noise - rate * log_total)
    slope = 1 + alpha * rate * share * excess / total
    per_log, by_size = excess * alpha / slope, floor - p.get("E", 0.0)
    slopes = {
        "N_c": p["alpha_N"] * by_size / _above_zero(p["N_c"]) / slope,
        "alpha_N": by_size * _log(p["N_c"] / x["params"]) / slope,
        "S_c": per_log / _above_zero(p["S_c"]),
        "alpha_S": excess * (log_run + growth) / slope,
        "B_star": per_log * share / _above_zero(p["B_star"]),
        "alpha_B": per_log * share * log_total * rate**2,
    }
    return total, slopes | ({"E": 1 / slope} if "E" in p else {})


def solve(floor, log_run, log_noise, alpha, rate):
    """e > 0 of e = (run (1 + noise / (floor + e)^rate))^alpha, for real arrays that broadcast together."""
    step = lambda excess: np.exp(alpha * (log_run + _softplus(log_noise - rate * np.log(floor + excess))[0]))
    with np.errstate(all="ignore"):
        # Two points that cannot lie right of the root: an infinite batch, and a floor of zero with noise alone ...
        least = np.maximum(np.exp(alpha * log_run), np.exp(alpha * (log_run + log_noise) / (1 + alpha * rate)) - floor)
        least = np.maximum(least, np.exp(LEAST))
        # ... and two steps of the fixed point, which falls: the first overshoots, the second falls short of the root again.
        excess = np.fmax(least, step(step(least)))
        for _ in range(STEPS):
            total = floor + excess
            growth, share = _softplus(log_noise - rate * np.log(total))
            value = np.log(excess) - alpha * (log_run + growth)
            move = -value / (total / excess + alpha * rate * share)
            excess = excess + total * np.expm1(move)
            if not (move * total > EXACT * excess).any():  # from the left every step rises, until rounding ends it
                break
    return excess


def _terms(p, x):
    floor = np.exp(p["alpha_N"] * _log(p["N_c"] / x["params"])) + p.get("E", 0.0)
    return floor, _log(p["S_c"] / x["steps"]), _log(p["B_star"] / x["batch"]), p["alpha_S"], 1 / p["alpha_B"]


def _softplus(z):
    """ln(1 + e^z) and its derivative, for real or complex z of any size."""
    right = np.real(z) > 0
    small = np.exp(np.where(right, -z, z))
    return np.where(right, z, 0.0) + np.log1p(small), np.where(right, 1.0, small) / (1 + small)


def _log(x):
    """ln x, a large negative number where x is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.real(x) > 0, np.log(x), LEAST)


def _above_zero(x):
    return np.maximum(x, np.finfo(np.float64).tiny)
