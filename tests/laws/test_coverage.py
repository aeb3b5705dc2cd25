"""How often intervals and bands cover; the long run: benchmarks/coverage.py."""

import numpy as np
import pytest
from scipy import stats

from scaling_jax import laws
from scaling_jax.laws import derived, forms, intervals, measured
from tests.laws.planted import CHINCHILLA, chinchilla_points, ends, level_of, line, power_points

# How often


def least(worlds, chance=1e-4):
    """Fewest of so many worlds that an interval of 95% covers with this chance; of 200 worlds at 85% it is reached once in twenty times."""
    return stats.binom.ppf(chance, worlds, 0.95)


def covered(worlds, draw, truth, asked, **options):
    hits = dict.fromkeys(asked, 0)
    for seed in range(worlds):
        found = draw(seed)
        for (name, _), one in zip(asked.items(), intervals.several(found, list(asked.values()), **options), strict=True):
            hits[name] += one.low <= truth[name] <= one.high
    return hits


POWER_TRUTH = {"E": 1.7, "alpha": 0.34, "ahead": 1.7 + 400 * 1e9**-0.34}
POWER_ASKED = {"E": "E", "alpha": "alpha", "ahead": lambda p: p["E"] + p["A"] * 1e9 ** -p["alpha"]}


def test_a_power_law_of_four_sizes_and_three_seeds_is_covered():
    x = np.repeat(np.geomspace(1e7, 1e8, 4), 3)
    hits = covered(120, lambda seed: laws.fit(forms.power, power_points([7, seed], x=x)), POWER_TRUTH, POWER_ASKED)
    assert min(hits.values()) >= least(120), hits


@pytest.mark.parametrize("seeds", [3, 5])
def test_seeds_that_sizes_share_are_clusters(seeds):
    label = np.tile(np.arange(seeds), 5)
    x = np.repeat(np.geomspace(1e7, 1e8, 5), seeds)

    def draw(seed):
        points = power_points([8, seed], noise=0.014, x=x)
        points["loss"] = points["loss"] + 0.014 * np.random.default_rng([9, seed]).standard_normal(seeds)[label]
        return laws.fit(forms.power, points, clusters=label)

    hits = covered(200, draw, POWER_TRUTH, POWER_ASKED)
    assert min(hits.values()) >= least(200), hits


CHINCHILLA_ASKED = {"E": "E", "alpha": "alpha", "a": lambda p: p["beta"] / (p["alpha"] + p["beta"])}
NOISES = {
    "log": lambda rng, n: 0.01 * rng.standard_normal(n),
    "huber": lambda rng, n: 0.01 * rng.standard_normal(n) * np.where(rng.random(n) < 0.05, 8, 1),
}


@pytest.mark.full
@pytest.mark.parametrize("loss", list(NOISES))
def test_chinchilla_at_sixteen_points_is_covered(loss):
    """With Huber's loss and residuals that the law goes through counted as noise it was 82%; the band of a new run was 88%."""
    size, data = (float(v) for v in derived.compute_optimal(CHINCHILLA, 1e22))
    at, inside = {"params": size, "tokens": data}, []
    mean = forms.chinchilla.predict(CHINCHILLA, {"params": [size], "tokens": [data]})

    def draw(seed):
        found = laws.fit(forms.chinchilla, chinchilla_points([10, seed], NOISES[loss]), loss=loss)
        band, rng = found.band(at, kind="run"), np.random.default_rng([11, seed])
        new = mean * np.exp(NOISES[loss](rng, 50))
        inside.append(float(((band.low <= new) & (new <= band.high)).mean()))
        return found

    truth = CHINCHILLA | {"a": 0.366 / (0.348 + 0.366)}
    hits = covered(200, draw, truth, CHINCHILLA_ASKED)
    assert min(hits.values()) >= least(200), hits
    assert 0.92 <= np.mean(inside) <= 0.98, np.mean(inside)


def test_the_band_of_a_new_run_holds_new_runs_at_few_points_and_wild_noise():
    """Huber's loss, a line of twelve points: mostly the width of the noise; the residuals' own quantiles alone hold 85% of new runs."""
    x, inside = np.linspace(1, 2, 12), []
    for seed in range(60):
        rng = np.random.default_rng([12, seed])
        found = laws.fit(line, {"x": x, "loss": (2 + x) * np.exp(NOISES["huber"](rng, 12))}, loss="huber")
        band, new = found.band(x=1.5, kind="run"), 3.5 * np.exp(NOISES["huber"](rng, 200))
        inside.append(float(((band.low <= new) & (new <= band.high)).mean()))
    assert 0.92 <= np.mean(inside) <= 0.98, np.mean(inside)


def test_measured_coverage_is_the_level_where_the_interval_is_exact():
    """A line with normal noise has exact t intervals, whatever its points; the worlds' noise is that of the points."""
    x = np.linspace(0, 1, 6)
    found = laws.fit(line, {"x": x, "loss": 1 + x + 0.1 * np.random.default_rng(0).standard_normal(6)})
    for level in (0.5, 0.95):
        one = measured.measured_coverage(found, ["b"], worlds=150, level=level)["b"]
        assert one.worlds == 150 and one.refused == 0 and one.truth == found["b"]
        assert abs(one.covered - level) <= 3.5 * one.error and one.below + one.above + one.covered == pytest.approx(1)
    width = np.diff(ends(found, "b"))[0]
    assert one.width == pytest.approx(width, rel=0.2)  # the median of s is 0.92 of its root mean square, at four degrees of freedom
    assert str(one).startswith(f"covers {one.covered:.1%} +- ")


def test_measured_coverage_says_where_an_interval_does_not_hold():
    """Rows that share a seed, taken as independent: the mean of 4 seeds of 5 rows each, of one effect and little else."""
    label = np.repeat(np.arange(4), 5)
    y = np.random.default_rng(1).standard_normal(4)[label] + 0.05 * np.random.default_rng(2).standard_normal(20)
    points = {"x": np.arange(20.0), "loss": y}
    shared = measured.measured_coverage(laws.fit(level_of, points, clusters=label), "m", worlds=100)["m"]
    assert abs(shared.covered - 0.95) <= 3.5 * shared.error
    ends_by_rows = []
    draw = measured._noise(laws.fit(level_of, points, clusters=label), label)
    for seed in range(100):
        ends_by_rows.append(laws.fit(level_of, points | {"loss": draw(np.random.default_rng(seed))}).interval("m"))
    assert measured.tally(0.0, ends_by_rows).covered < 0.8


def test_worlds_that_no_points_can_have_had_are_refused():
    """Noise as large as the lowest losses: some worlds fall below zero, which a power law of positive losses never sees."""
    x = np.geomspace(1e6, 1e8, 8)
    points = {"params": x, "loss": 400 * x**-0.34 + 0.02 * np.random.default_rng(0).standard_normal(8).cumsum() ** 2 + 0.01}
    points["loss"][-2:] = [0.9, 0.02]
    seen = measured.measured_coverage(laws.fit(forms.power, points), ["alpha"], worlds=30)["alpha"]
    assert 0 < seen.refused < 1 and seen.worlds == round(30 * (1 - seen.refused))


def test_a_tally_counts_misses_by_their_side():
    one = measured.tally(1.0, [(0, 2), (1.5, 2), (0, 0.5), (-np.inf, 3), (1, np.inf)], refused=5)
    assert (one.covered, one.below, one.above, one.unbounded, one.worlds, one.refused) == (0.6, 0.2, 0.2, 0.4, 5, 0.5)
