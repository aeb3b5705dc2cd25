"""Chinchilla's three approaches on planted runs: exponents, bands, the bias of approach 2, and what is missing."""

import numpy as np
import pytest

from scaling_jax.laws import derived, forms
from scaling_jax.laws.isoflop import isoflop

TRUTH = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
EXACT = TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"])
COMPUTE = np.geomspace(1e18, 1e21, 5)


def grid(centre=1.0, width=6.0, noise=0.0, seed=0, truth=TRUTH, count=9):
    """`count` sizes at every budget, spread by `width` both ways around `centre` times the optimum."""
    best = derived.compute_optimal(truth, COMPUTE)[0]
    size = (best[:, None] * centre * np.geomspace(1 / width, width, count)).ravel()
    tokens = np.repeat(COMPUTE, count) / (6 * size)
    loss = forms.chinchilla.predict(truth, {"params": size, "tokens": tokens})
    loss = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(loss)))
    return {"params": size, "tokens": tokens, "loss": loss}


def curves(noise=0.0, seed=0):
    """Training curves of nine sizes, twelve token counts each."""
    size, tokens = (g.ravel() for g in np.meshgrid(np.geomspace(3e7, 3e10, 9), np.geomspace(1e8, 1e12, 25)))
    loss = forms.chinchilla.predict(TRUTH, {"params": size, "tokens": tokens})
    return {"params": size, "tokens": tokens, "loss": loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(loss)))}


def test_the_parametric_law_is_exact_without_noise():
    found = isoflop(grid())
    assert found.law["beta"] / (found.law["alpha"] + found.law["beta"]) == pytest.approx(EXACT, abs=1e-6)


def test_parabolas_are_nearly_right_where_the_grid_is_centred():
    found = isoflop(grid(width=3.0))
    assert found.parabolas.a == pytest.approx(EXACT, abs=0.005)
    size = np.exp(found.parabolas.log_size(1e21))
    assert size == pytest.approx(derived.compute_optimal(TRUTH, 1e21)[0], rel=0.05)


def test_the_bias_of_parabolas_is_what_they_are_off_by():
    """A grid whose centre drifts with compute, and a law of unequal exponents: the bias is seen, and stated beforehand."""
    truth = TRUTH | {"alpha": 0.5, "A": 8000.0, "beta": 0.25, "B": 300.0}
    data = grid(truth=truth, width=12.0)
    drift = (COMPUTE / COMPUTE[0]) ** 0.15
    data["params"] = data["params"] * np.repeat(drift, 9)
    data["tokens"] = data["tokens"] / np.repeat(drift, 9)
    data["loss"] = forms.chinchilla.predict(truth, data)
    found = isoflop(data)
    exact = truth["beta"] / (truth["alpha"] + truth["beta"])
    off = found.parabolas.a - exact
    assert abs(off) > 0.005
    assert found.parabolas.bias == pytest.approx(off, abs=1e-4)


def test_the_envelope():
    found = isoflop(curves())
    assert found.envelope.reason == "" and found.envelope.a == pytest.approx(EXACT, abs=0.06)
    assert found.envelope.bias == pytest.approx(found.envelope.a - EXACT, abs=1e-3)
    noisy = isoflop(curves(noise=0.001))
    value, low, high = noisy.exponents()["1 envelope"]
    assert low < EXACT + noisy.envelope.bias < high


def test_intervals_cover_and_multiply_to_the_compute():
    found = isoflop(grid(noise=0.002))
    for value, low, high in found.exponents().values():
        assert low < value < high
    value, low, high = found.exponents()["3 law"]
    assert low < EXACT < high
    for sizes in found.optimum(1e22).values():
        (n, n_low, n_high), (d, d_low, d_high) = sizes["params"], sizes["tokens"]
        assert n_low < n < n_high and d_low < d < d_high
        assert 6 * n * d == pytest.approx(1e22) and 6 * n_low * d_high == pytest.approx(1e22)


def test_what_is_missing_is_said():
    few = {name: values[:18] for name, values in grid(noise=0.001).items()}
    found = isoflop(few)
    assert "budgets" in found.parabolas.reason and "sizes have a loss at" in found.envelope.reason
    assert set(found.exponents()) == {"3 law"}
    edge = isoflop(grid(centre=30.0, width=3.0, noise=0.0005))
    assert "with a minimum among them" in edge.parabolas.reason
    with pytest.raises(ValueError, match="above zero"):
        isoflop({"params": [1.0, -1], "tokens": [1.0, 1], "loss": [1.0, 1]})


def test_budgets_by_column_are_those_of_equal_compute():
    data = grid(noise=0.001)
    assert isoflop(data).parabolas.a == isoflop({**data, "budget": np.repeat(COMPUTE, 9)}, "budget").parabolas.a
