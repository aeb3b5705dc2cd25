"""Planted points of known laws, for tests of fits, intervals and seals."""

import functools

import numpy as np

from scaling_jax import laws
from scaling_jax.laws import forms

SIZES = np.repeat(np.geomspace(1e7, 1e8, 5), 3)
GRID = [g.ravel() for g in np.meshgrid(np.geomspace(3e7, 3e9, 4), np.geomspace(1e9, 1e11, 4))]
CHINCHILLA = {"E": 1.82, "A": 482.0, "B": 2085.0, "alpha": 0.348, "beta": 0.366}


def line(x, *, a=(-np.inf, np.inf), b=(-np.inf, np.inf)):
    """y = a + b x"""
    return a + b * x


def level_of(x, *, m=(-np.inf, np.inf)):
    """y = m"""
    return m + 0 * x


def power_points(seed, floor=1.7, scale=400.0, exponent=0.34, noise=0.02, x=SIZES):
    return {"params": x, "loss": floor + scale * x**-exponent + noise * np.random.default_rng(seed).standard_normal(len(x))}


def chinchilla_points(seed, noise):
    law = forms.chinchilla.predict(CHINCHILLA, {"params": GRID[0], "tokens": GRID[1]})
    return {"params": GRID[0], "tokens": GRID[1], "loss": law * np.exp(noise(np.random.default_rng(seed), len(law)))}


def ends(found, quantity, **options):
    one = found.interval(quantity, **options)
    return np.array([one.low, one.high])


def close(found, quantity, want, share=1e-3):
    """The interval's ends are the wanted ones to this share of the width."""
    got, want = ends(found, quantity), np.array(want)
    assert np.abs(got - want).max() <= share * (want[1] - want[0]), (got, want)


POWER = dict(E=1.7, A=400.0, alpha=0.34)
AT = {"params": 1e10}


@functools.cache
def found(loss="lsq", seed=0, spread=0.01):
    rng, x = np.random.default_rng(seed), np.tile(np.geomspace(1e6, 1e9, 5), 2)
    y = forms.power.predict(POWER, {"params": x})
    noise = spread * rng.standard_normal(len(x))
    return laws.fit(forms.power, {"params": x, "loss": y + noise if loss == "lsq" else y * np.exp(noise)}, loss=loss)
