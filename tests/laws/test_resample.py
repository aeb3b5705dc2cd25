"""Resampled fits: bootstrap and delete-one, against repeated rows, SciPy and t intervals."""

import numpy as np
import pytest
from scipy import stats

from scaling_jax import laws
from scaling_jax.laws import forms, intervals, resample
from scaling_jax.laws.form import NotTestable
from tests.laws.planted import chinchilla_points, ends, level_of, power_points

# Resamples


@pytest.mark.parametrize("law", ["power", "chinchilla"])
def test_weights_of_a_resample_are_repeated_rows(law):
    form = getattr(forms, law)
    points = power_points(6) if law == "power" else chinchilla_points(6, lambda rng, n: 0.01 * rng.standard_normal(n))
    found, rng = laws.fit(form, points), np.random.default_rng(0)
    n = found.n
    rows = [rng.integers(0, n, n) for _ in range(6)]
    samples, converged = resample.refit(found, np.array([np.bincount(one, minlength=n) for one in rows], float))
    assert converged.all()
    for i, one in enumerate(rows):
        again = laws.fit(form, {name: values[one] for name, values in points.items()})
        for name in form.params:
            assert samples[name][i] == pytest.approx(again[name], rel=1e-4, abs=1e-6)


def test_refits_leave_zero_and_reach_it():
    """An offset of zero grows again where a resample wants it: no resample ends above what a search of its own finds."""
    points = power_points(0, 0.05, 40.0, 0.3, x=np.repeat(np.geomspace(1e6, 1e7, 4), 3))
    found, rng = laws.fit(forms.power, points), np.random.default_rng(1)
    weights = rng.multinomial(12, np.full(12, 1 / 12), 30).astype(float)
    weights = weights[(weights.reshape(30, 4, 3).sum(2) > 0).all(1)]
    samples, _ = resample.refit(found, weights)
    assert found["E"] == 0 and (samples["E"] == 0).any() and (samples["E"] > 0.05).any()
    for i, w in enumerate(weights):
        law = samples["E"][i] + samples["A"][i] * points["params"] ** -samples["alpha"][i]
        assert (w * (points["loss"] - law) ** 2).sum() <= laws.fit(forms.power, points, weights=w).objective * (1 + 1e-6)


def clusters_of_means(groups=8, rows=4):
    rng = np.random.default_rng(2)
    label = np.repeat(np.arange(groups), rows)
    y = rng.exponential(1.0, groups)[label] + 0.1 * rng.standard_normal(groups * rows)
    return {"x": np.arange(len(y), dtype=float), "loss": y}, label, y.reshape(groups, rows).mean(1)


def test_a_bootstrap_keeps_the_points_weights():
    points, _, _ = clusters_of_means()
    w = np.linspace(0.1, 5, 32)
    found = laws.fit(level_of, points, weights=w)
    assert found["m"] == pytest.approx(np.average(points["loss"], weights=w))
    draws = resample.bootstrap(found, 4000).of("m")
    assert draws.mean() == pytest.approx(found["m"], abs=4 * draws.std() / np.sqrt(4000) + 0.02 * draws.std())


def test_draws_may_be_infinite():
    """Where a share of the resamples never reaches a loss, the upper end is infinite and no average of infinity and a number."""
    draws = np.concatenate([np.arange(1.0, 98), [np.inf] * 3])
    assert intervals.quantiles(draws, 50.0, 0.95) == (3.0, np.inf)
    assert intervals.quantiles(draws, 50.0, 0.9) == (5.0, 96.0)
    with pytest.raises(NotTestable, match="no number in 1.0% of the resamples"):
        intervals.quantiles(np.append(np.arange(99.0), np.nan), 50.0, 0.95)


def test_whole_clusters_are_drawn():
    """Of a mean over balanced clusters the bootstrap is that of the clusters' means: standard error exact, percentiles as SciPy's."""
    points, label, means = clusters_of_means()
    found = laws.fit(level_of, points)
    draws = resample.bootstrap(found, 20_000, clusters=label).of("m")
    assert draws.std() == pytest.approx(means.std() / np.sqrt(8), rel=0.02)
    want = stats.bootstrap((means,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(3)).confidence_interval
    np.testing.assert_allclose(intervals.quantiles(draws, found["m"], 0.95), [want.low, want.high], atol=0.02 * (want.high - want.low))
    with pytest.raises(NotTestable, match="4 clusters are too few for a bootstrap, it takes 5; use the jackknife"):
        resample.bootstrap(found, 100, clusters=label % 4)


def test_bca_is_scipys():
    _, _, means = clusters_of_means()
    want = stats.bootstrap((means,), np.mean, n_resamples=2000, method="BCa", rng=np.random.default_rng(4))
    left_out = np.array([np.delete(means, i).mean() for i in range(len(means))])
    got = intervals.quantiles(want.bootstrap_distribution, means.mean(), 0.95, left_out)
    np.testing.assert_allclose(got, [want.confidence_interval.low, want.confidence_interval.high], rtol=1e-9)


@pytest.mark.parametrize("n", [5, 8, 30])
def test_expanded_percentiles_of_a_mean_are_its_t_interval(n):
    """Where draws are normal with the bootstrap's own variance, (n - 1) / n of the sample's: exact draws instead of random ones."""
    x = np.random.default_rng(n).normal(3, 2, n)
    draws = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000, x.mean(), x.std() / np.sqrt(n))
    want = stats.t.interval(0.95, n - 1, x.mean(), stats.sem(x))
    np.testing.assert_allclose(intervals.quantiles(draws, x.mean(), 0.95, groups=n), want, atol=2e-3 * (want[1] - want[0]))


def test_the_jackknife_of_a_mean_is_its_t_interval_and_of_a_size_one_of_factors():
    points, label, means = clusters_of_means()
    found = laws.fit(level_of, points, clusters=label)
    want = np.array(stats.t.interval(0.95, 7, means.mean(), stats.sem(means)))
    np.testing.assert_allclose(ends(found, "m"), want, rtol=1e-6)
    np.testing.assert_allclose(ends(found, lambda p: np.exp(3 * p["m"])), np.exp(3 * want), rtol=1e-5)
