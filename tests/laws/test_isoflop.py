"""Chinchilla's three approaches on planted runs: exponents, widths of intervals, the bias of approach 2, and what is missing."""

import numpy as np
import pytest

from scaling_jax.laws import derived, forms
from scaling_jax.laws.isoflop import approaches, covered, isoflop, noise_free

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
    """Training curves of nine sizes, 25 token counts each."""
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


@pytest.mark.parametrize(("name", "points"), [("1 envelope", curves), ("2 parabolas", grid)])
def test_intervals_are_as_wide_as_the_noise_makes_the_estimate_vary(name, points):
    """The spread over runs made again, which no interval has seen: a 95% interval is 3.92 of its standard deviations wide, and holds the middle."""
    clean, noise = points(), 0.002
    approach = approaches(clean["params"], clean["tokens"], None)[name]()
    again = approach.lines(clean["loss"] * np.exp(noise * np.random.default_rng(9).standard_normal((400, len(clean["loss"])))))
    lines = [next(line for line in isoflop(points(noise=noise, seed=seed)).lines if line.name == name) for seed in range(8)]
    a, log_k = noise_free(TRUTH, clean)[name]
    at = 10 * float((6 * clean["params"] * clean["tokens"]).max())
    for compute, truth, values in ((None, a, again[:, 0]), (at, log_k + a * np.log(at), again @ [np.log(at), 1.0])):
        _, low, high = np.array([line.interval(compute) for line in lines]).T
        assert 0.8 < np.median(high - low) / (3.92 * values.std()) < 1.25
        assert ((low <= truth) & (truth <= high)).sum() >= 6
        _, low, high = np.array([line.interval(compute, 0.5) for line in lines]).T
        assert 0.7 < np.median(high - low) / (1.349 * values.std()) < 1.3


def test_an_envelope_that_no_noise_moves_has_an_interval_of_no_width():
    value, low, high = isoflop(curves(noise=1e-8)).exponents()["1 envelope"]
    assert low == pytest.approx(value, abs=1e-9) and high == pytest.approx(value, abs=1e-9)


def test_intervals_of_size_and_data_multiply_to_the_compute():
    found = isoflop(grid(noise=0.002))
    for sizes in found.optimum(1e22).values():
        (n, n_low, n_high), (d, d_low, d_high) = sizes["params"], sizes["tokens"]
        assert n_low < n < n_high and d_low < d < d_high
        assert 6 * n * d == pytest.approx(1e22) and 6 * n_low * d_high == pytest.approx(1e22)


def test_what_is_covered_is_measured_at_the_very_points():
    found = isoflop(grid(noise=0.003))
    seen = covered(found.law, grid(), 1e22, worlds=10)
    assert set(seen) == {"2 parabolas", "3 law"}
    for of in seen.values():
        assert of["a"].worlds == 10 and of["a"].covered >= 0.7 and of["N_opt"].covered >= 0.7
    assert seen["3 law"]["a"].truth == pytest.approx(found.law["beta"] / (found.law["alpha"] + found.law["beta"]))
    assert seen["3 law"]["N_opt"].truth == pytest.approx(derived.compute_optimal(found.law, 1e22)[0])


def test_too_much_noise_is_said():
    found = isoflop(grid(noise=0.03, width=2.0, count=5))
    assert "2 parabolas" not in found.exponents() and "too noisy" in found.parabolas.reason


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
