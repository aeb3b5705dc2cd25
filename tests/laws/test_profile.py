"""Profiles and the bands made of them, against closed forms, SciPy and brute force; the noise they are measured in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from scaling_jax import laws
from scaling_jax.laws import derived, design, forms, intervals, profile
from tests.laws.planted import SIZES, chinchilla_points, close, ends, line, power_points

# Closed forms


@given(seed=st.integers(0, 1000), level=st.sampled_from([0.5, 0.9, 0.95, 0.99]))
@settings(max_examples=15)
def test_the_profile_of_a_line_is_its_t_interval(seed, level):
    """Slope and intercept by linregress, the mean at x_0 by se^2 = s^2 (1 / n + (x_0 - mean x)^2 / Sxx)."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-3, 5, 7)
    y = 1.5 - 0.3 * x + rng.standard_normal(7)
    found, want = laws.fit(line, {"x": x, "loss": y}), stats.linregress(x, y)
    t = stats.t.ppf(0.5 + level / 2, 5)
    for quantity, value, error in (("b", want.slope, want.stderr), ("a", want.intercept, want.intercept_stderr)):
        np.testing.assert_allclose(ends(found, quantity, level=level), [value - t * error, value + t * error], atol=1e-4 * t * error)
    s = np.sqrt(found.objective / 5)
    at = want.intercept + want.slope * 10
    half = t * s * np.sqrt(1 / 7 + (10 - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
    np.testing.assert_allclose(ends(found, lambda p: p["a"] + 10 * p["b"], level=level), [at - half, at + half], atol=1e-4 * half)
    run = found.band(x=10.0, level=level, kind="run")
    half = np.hypot(half, t * s)
    np.testing.assert_allclose([run.low[0], run.high[0]], [at - half, at + half], atol=1e-4 * half)


def test_weights_are_inverse_variances():
    """Of weighted points the interval is the one of points divided by their standard deviations: closed form of weighted least squares."""
    rng = np.random.default_rng(0)
    x, w = np.linspace(0, 1, 12), rng.uniform(0.2, 5, 12)
    y = 2 + 3 * x + rng.standard_normal(12) / np.sqrt(w)
    design = np.stack([np.ones(12), x], 1) * np.sqrt(w)[:, None]
    value, rest = np.linalg.lstsq(design, y * np.sqrt(w), rcond=None)[:2]
    error = np.sqrt(rest[0] / 10 * np.linalg.inv(design.T @ design)[1, 1])
    close(laws.fit(line, {"x": x, "loss": y}, weights=w), "b", value[1] + np.array([-1, 1]) * stats.t.ppf(0.975, 10) * error, 1e-4)


def test_the_band_of_a_new_run_with_weights_is_one_of_mean_variance():
    """Closed form of weighted least squares: half^2 = t^2 s^2 (x' C x + mean(1 / w))."""
    rng = np.random.default_rng(1)
    x, w = np.linspace(0, 1, 12), rng.uniform(0.2, 5, 12)
    y = 2 + 3 * x + rng.standard_normal(12) / np.sqrt(w)
    design = np.stack([np.ones(12), x], 1) * np.sqrt(w)[:, None]
    value, rest = np.linalg.lstsq(design, y * np.sqrt(w), rcond=None)[:2]
    at = np.array([1.0, 2.0])
    half = stats.t.ppf(0.975, 10) * np.sqrt(rest[0] / 10 * (at @ np.linalg.inv(design.T @ design) @ at + (1 / w).mean()))
    band = laws.fit(line, {"x": x, "loss": y}, weights=w).band(x=2.0, kind="run")
    np.testing.assert_allclose([band.low[0], band.high[0]], [at @ value - half, at @ value + half], rtol=1e-4)


@pytest.mark.parametrize("loss", ["lsq", "log", "huber"])
@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_unit_of_weights_changes_no_interval_and_no_band(loss, factor):
    rng = np.random.default_rng(2)
    points = power_points(3, x=np.repeat(SIZES, 3))
    w = rng.uniform(0.5, 2, len(points["loss"]))
    one, other = (laws.fit(forms.power, points, weights=w * unit, loss=loss) for unit in (1, factor))
    np.testing.assert_allclose(ends(one, "alpha"), ends(other, "alpha"), rtol=1e-5)
    for kind in ("law", "run"):
        bands = [found.band(params=1e10, kind=kind) for found in (one, other)]
        np.testing.assert_allclose([bands[0].low, bands[0].high], [bands[1].low, bands[1].high], rtol=1e-5)
    ranked = [design.next_run(found, {"params": [1e8, 1e9]}, "alpha")["shrinkage"] for found in (one, other)]
    np.testing.assert_allclose(*ranked, rtol=1e-5)


def test_one_wild_point_does_not_widen_the_robust_band_of_a_new_run():
    points = power_points(4, x=np.geomspace(1e6, 1e9, 25))
    clean = laws.fit(forms.power, points, loss="huber").band(params=1e10, kind="run")
    points["loss"][3] *= np.e**4
    dirty = laws.fit(forms.power, points, loss="huber").band(params=1e10, kind="run")
    assert dirty.high[0] - dirty.low[0] < 2 * (clean.high[0] - clean.low[0])


def test_with_the_exponent_given_a_power_law_is_a_line():
    points = power_points(1)
    found = laws.fit(forms.power, points, fixed={"alpha": 0.34})
    want = stats.linregress(SIZES**-0.34, points["loss"])
    t = stats.t.ppf(0.975, len(SIZES) - 2)
    close(found, "E", [want.intercept - t * want.intercept_stderr, want.intercept + t * want.intercept_stderr], 1e-4)
    close(found, "A", [want.slope - t * want.stderr, want.slope + t * want.stderr], 1e-3)


# Brute force


def brute_ends(points, restricted, start, value, limits, free):
    """Ends of a profile, by SciPy: `restricted(q, rest)` is the law's residuals with the quantity held at q, minimised over the rest."""
    best = optimize.least_squares(lambda p: p[0] + np.exp(p[1]) * points["params"] ** -p[2] - points["loss"], start, xtol=1e-15, ftol=1e-15)
    n = len(points["loss"])
    s2, least = 2 * best.cost / (n - free), 2 * best.cost

    def beyond(q):
        inner = min(
            optimize.least_squares(lambda rest: restricted(q, rest), x0, xtol=1e-15, ftol=1e-15, gtol=1e-15).cost
            for x0 in ([best.x[1], best.x[2]], [best.x[1] + 1, best.x[2] + 0.06], [best.x[1] - 1, best.x[2] - 0.06])
        )
        return np.sqrt(max(2 * inner - least, 0) / s2) - stats.t.ppf(0.975, n - free)

    return [optimize.brentq(beyond, limit, value, xtol=1e-10) for limit in limits]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_profile_of_a_power_law_is_that_of_brute_force(seed):
    points = power_points(seed)
    x, y, far = points["params"], points["loss"], 1e9
    found = laws.fit(forms.power, points)
    start = [found["E"], np.log(found["A"]), found["alpha"]]
    floor = brute_ends(points, lambda q, r: q + np.exp(r[0]) * x ** -r[1] - y, start, found["E"], (0.4, found["E"] + 0.8), 3)
    close(found, "E", floor)
    ahead = found.predict(params=far)
    law = lambda q, r: q - np.exp(r[0]) * far ** -r[1] + np.exp(r[0]) * x ** -r[1] - y
    close(found, lambda p: p["E"] + p["A"] * far ** -p["alpha"], brute_ends(points, law, start, ahead, (ahead - 0.4, ahead + 0.4), 3))
    band = found.band(params=far)
    np.testing.assert_allclose(
        [band.low[0], band.high[0]], ends(found, intervals.law_at(forms.power, {"params": np.array([far])})), rtol=1e-6
    )


@pytest.mark.parametrize("seed", [0, 2, 5])
def test_an_offset_at_its_bound_has_an_interval(seed):
    """E = 0 is the best fit: its interval goes from there to where fits with a given E are too bad, and A and alpha move with it."""
    points = power_points(seed, 0.05, 40.0, 0.3, x=np.repeat(np.geomspace(1e6, 1e7, 4), 3))
    found = laws.fit(forms.power, points)
    assert found["E"] == 0
    t, s2 = stats.t.ppf(0.975, 9), found.objective / 9

    def tau(name, value):
        return np.sqrt((laws.fit(forms.power, points, fixed={name: value}).objective - found.objective) / s2)

    assert found.interval("E").low == 0
    for name in ("E", "A", "alpha"):
        assert tau(name, found.interval(name).high) == pytest.approx(t, rel=3e-3)
    assert tau("alpha", found.interval("alpha").low) == pytest.approx(t, rel=3e-3)


@pytest.mark.parametrize("seed", [1, 3, 4])
def test_an_offset_near_its_bound_reaches_it_and_the_others_go_on(seed):
    """E > 0, and zero lies within its interval: low ends of A and alpha belong to fits with E = 0, where an offset searched by its logarithm
    would lag behind."""
    points = power_points(seed, 0.05, 40.0, 0.3, x=np.repeat(np.geomspace(1e6, 1e7, 4), 3))
    found = laws.fit(forms.power, points)
    assert found["E"] > 0 and found.interval("E").low == 0
    for name in ("A", "alpha"):
        held = laws.fit(forms.power, points, fixed={name: found.interval(name).low})
        assert np.sqrt((held.objective / found.objective - 1) * 9) == pytest.approx(stats.t.ppf(0.975, 9), rel=3e-3)
        assert held["E"] < 0.01


# Properties


@pytest.mark.parametrize("loss", ["log", "huber"])
def test_a_profile_does_not_depend_on_how_a_quantity_is_written(loss):
    found = laws.fit(forms.chinchilla, chinchilla_points(0, lambda rng, n: 0.01 * rng.standard_normal(n)), loss=loss)
    close(found, lambda p: np.log(p["A"]), np.log(ends(found, "A")), 5e-3)
    close(found, lambda p: 1 / p["alpha"], 1 / ends(found, "alpha")[::-1], 5e-3)
    close(found, lambda p: p["alpha"] + 0 * p["E"], ends(found, "alpha"), 5e-3)


def test_profiles_of_rising_level_are_nested_and_hold_the_value():
    found = laws.fit(forms.power, power_points(3))
    for quantity in ("E", "A", "alpha", lambda p: p["E"] - 10 * p["alpha"]):
        inside = [ends(found, quantity, level=level) for level in (0.3, 0.6, 0.9, 0.95, 0.99)]
        value = found.interval(quantity).value
        for inner, outer in zip(inside[:-1], inside[1:], strict=True):
            assert outer[0] <= inner[0] <= value <= inner[1] <= outer[1]


def test_a_difference_of_exponents_may_be_negative():
    """Its value is positive and its error large: walked by its logarithm it would end at zero."""
    found = laws.fit(forms.chinchilla, chinchilla_points(1, lambda rng, n: 0.01 * rng.standard_normal(n)), loss="log")
    for sign in (1, -1):
        low, high = ends(found, lambda p, sign=sign: sign * (p["alpha"] - p["beta"]))
        assert low < 0 < high
    size = ends(found, lambda p: derived.compute_optimal(p, 1e24)[0])
    assert 0 < size[0] < size[1]


def test_an_end_that_the_points_do_not_bound_is_infinite():
    """Tokens to a loss near the floor: the floor may lie above it, and then no data suffice."""
    points = power_points(4, x=np.repeat(np.geomspace(1e7, 1e8, 4), 3))
    found = laws.fit(forms.power, points)
    low, high = ends(found, "E")

    def needed(loss):
        def size(p):
            gap = loss - p["E"]
            with np.errstate(all="ignore"):
                return np.where(gap > 0, (p["A"] / np.where(gap > 0, gap, 1.0)) ** (1 / p["alpha"]), np.inf)

        return ends(found, size)

    assert np.isinf(needed(0.5 * found["E"] + 0.5 * high)[1])
    assert np.isfinite(needed(high + 0.2)).all()


def test_many_quantities_at_once_are_what_each_is_alone():
    found = laws.fit(forms.power, power_points(5))
    quantities = ["E", "A", lambda p: p["alpha"] ** 2, "alpha"]
    for method in ("profile", "jackknife", "bca"):
        together = intervals.several(found, quantities, method=method, count=200)
        for one, alone in zip(together, [found.interval(q, method=method, count=200) for q in quantities], strict=True):
            np.testing.assert_allclose([one.low, one.high], [alone.low, alone.high], rtol=1e-6)


# Noise


@pytest.mark.parametrize("delta", [1e-3, 0.01, 0.05])
def test_the_slope_of_psi_is_that_of_normal_noise(delta):
    """E psi'(r) = P(|r| < delta), from 12 and from 500 residuals of standard deviation 0.01: the mean over samples."""
    rng = np.random.default_rng(0)
    want = 2 * stats.norm.cdf(delta / 0.01) - 1
    for n, share in ((12, 0.15), (500, 0.03)):
        got = [profile.slope_of_psi(r, np.ones(n), delta) for r in 0.01 * rng.standard_normal((300, n))]
        assert np.mean(got) == pytest.approx(want, rel=share)


def test_residuals_that_the_law_goes_through_say_nothing_about_the_noise():
    """Five of sixteen residuals are zero: with five parameters fitted the slope is that of the other eleven."""
    r = 0.01 * np.random.default_rng(1).standard_normal(11)
    whole = np.concatenate([1e-9 * np.ones(5), r])
    want = profile.slope_of_psi(r, np.ones(11), 1e-3)
    assert profile.slope_of_psi(whole, np.ones(16), 1e-3, fitted=5) == pytest.approx(want, rel=1e-12)
    assert profile.slope_of_psi(whole, np.ones(16), 1e-3) > 1.2 * want


def test_the_robust_spread_is_a_standard_deviation_that_wild_points_move_little():
    r = np.random.default_rng(0).standard_normal(4000)
    assert profile.spread(r, 4000) == pytest.approx(1.0, abs=0.03)
    r[::20] *= 50
    assert profile.spread(r, 4000) < 1.15 < r.std()
