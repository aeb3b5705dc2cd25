"""The art of scaling RL compute (arXiv:2510.13786), its published sigmoids: values, and whether half a curve tells where it ends.

R(C) = R_0 + (A - R_0) / (1 + (C_mid / C)^B), R the pass rate on held-out prompts (mean of 16 answers to 1,000), C in GPU-hours.
The authors leave out the first 1,500 GPU-hours, fit the first half of a run, and give A an error of 0.02 from three repeated runs.
Raw curves are not at hand: curves are planted at the published parameters.
"""

from pathlib import Path

import numpy as np

from scaling_jax.laws import fitting, forms, tables

TABLE = Path(__file__).resolve().parents[2] / "published" / "scale_rl.csv"
FIRST = 1_500.0  # GPU-hours before which the authors do not fit
A_ERROR = 0.02  # the authors' error of A, from three repeated runs
PROMPTS, ANSWERS = 1_000, 16


def sigmoids(start=0.40):
    """{experiment: R_0, A, C_mid, B}; the table has no R_0, it starts from `start`."""
    names = ["A", "C_mid", "B"]
    table = tables.read_points(TABLE, needed=names).set_index("experiment")
    return {experiment: {"R_0": start, **row} for experiment, row in table[names].to_dict("index").items()}


def reward(params, compute):
    """R(C), [n]."""
    return forms.sigmoid.predict(params, {"compute": np.atleast_1d(np.asarray(compute, float))})


def sampling_error(rate):
    """Standard deviation of a pass rate: 16 answers to each of 1,000 prompts, the same prompts every time, all equally hard (an upper bound)."""
    return np.sqrt(rate * (1 - rate) / (PROMPTS * ANSWERS))


def planted(params, until, points, seed, noise=1.0):
    """`points` evaluations of a planted run from 1,500 to `until` GPU-hours, evenly spaced, `noise` times the sampling error: two columns."""
    compute = np.linspace(FIRST, until, points)
    exact = reward(params, compute)
    drawn = np.random.default_rng(seed).standard_normal(points)
    return {"compute": compute, "reward": exact + noise * sampling_error(exact) * drawn}


def recover(columns, start=None):
    """The sigmoid fitted to a curve or a part of one; R_0 given (`start`, the pass rate before training) or fitted: a Fit."""
    return fitting.fit(forms.sigmoid, columns, fixed=None if start is None else {"R_0": start})
