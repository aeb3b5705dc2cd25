"""Sparsing Law (arXiv:2411.02335), its published coefficients: activation ratio against data of ReLU and SiLU models.

The paper prints coefficients, not measurements: what can be checked is that its curves are those of our forms, that a fit to points
on them gives the coefficients back, and what they say at the ends. Those of SiLU fall below zero at the other one: the 0.4B model's
below 1.1e9 tokens, the 0.8B and 1.2B models' below 1.5e9; no points are asked of them there.
"""

from pathlib import Path

import numpy as np

from scaling_jax.laws import fitting, forms, tables

TABLE = Path(__file__).resolve().parents[2] / "published" / "activation_sparsity.csv"
FORMS = {"relu": forms.sparsing_relu, "silu": forms.sparsing_silu}


def coefficients():
    """The published coefficients as a frame: activation, size, alpha, b (ReLU), c, A_0."""
    frame = tables.read_points(TABLE, needed=("alpha", "c", "A_0"))
    return frame.assign(b=frame["b"].replace("", "nan").astype(float))


def law(row):
    """The form of a row and its parameters by name."""
    form = FORMS[row["activation"]]
    return form, {name: float(row[name]) for name in form.params}


def ratio(row, tokens):
    """Activation ratio of one published model after `tokens` tokens, [n]."""
    form, params = law(row)
    return form.predict(params, {"tokens": tokens})


def refit(row, tokens, noise=0.0, seed=0):
    """The law refitted to points of the published curve at `tokens`, with normal noise of this standard deviation: a Fit."""
    form, _ = law(row)
    ratios = ratio(row, tokens) + noise * np.random.default_rng(seed).standard_normal(len(tokens))
    return fitting.fit(form, {"tokens": np.asarray(tokens, float), "activation_ratio": ratios})


def limits(activation):
    """{size: A_0}: where the activation ratio goes with unlimited data."""
    frame = coefficients()
    part = frame[frame["activation"] == activation]
    return dict(zip(part["size"], part["A_0"], strict=True))
