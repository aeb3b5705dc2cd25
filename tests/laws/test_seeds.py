"""Numbers of seeds against the noncentral t, published tables of power, and worlds judged by the whole laboratory."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scaling_jax import laws
from scaling_jax.laws import forms, seeds, statistics
from scaling_jax.laws.form import NotTestable
from scaling_jax.records import ConfigError

POWER = dict(E=1.7, A=400.0, alpha=0.34)
CHINCHILLA = dict(E=1.7, A=400.0, B=410.0, alpha=0.34, beta=0.28)
SIZES = {"params": np.geomspace(1e6, 1e9, 6)}
GRID = {"params": np.repeat(np.geomspace(1e6, 1e8, 4), 4), "tokens": np.tile(np.geomspace(1e8, 1e10, 4), 4)}


def line(x, *, a=(-np.inf, np.inf), b=(-np.inf, np.inf)):
    """L = a + b x"""
    return a + b * x


def exact(effect, se, dof, quantile=0.975):
    """Power of a t test by scipy's noncentral t, which shares no code with scipy.special's."""
    return stats.nct.sf(stats.t.ppf(quantile, dof), dof, effect / se)


def two_groups(n):
    """Relabelings of two cells of n runs."""
    return math.comb(2 * n, n)


# --- contrasts, exactly --------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect, n", [(0.2, 394), (0.5, 64), (0.8, 26), (1.0, 17)])
def test_two_groups_need_what_the_tables_of_power_say(effect, n):
    """Cohen 1988, table 2.4.1, and G*Power: two-sided t test of two means at 5% and 80% power, by effect in standard deviations."""
    found = seeds.seeds_for_contrast(effect, se=math.sqrt(2 / 10), dof=18, seeds=10)
    assert found.seeds == n and found.power >= 0.8 > found.tried[n - 1] and found.count == 0


@settings(max_examples=100)
@given(effect=st.floats(0.05, 5), dof=st.floats(1, 200), level=st.sampled_from([0.9, 0.95, 0.99]))
def test_power_is_the_noncentral_t(effect, dof, level):
    assert seeds.contrast_power(effect, 1.0, dof, level) == pytest.approx(exact(effect, 1.0, dof, 0.5 + level / 2), abs=1e-7)


def test_holm_over_many_claims_asks_for_more():
    one = seeds.seeds_for_contrast(1.0, math.sqrt(2 / 5), 8, 5, relabelings=two_groups)
    many = seeds.seeds_for_contrast(1.0, math.sqrt(2 / 5), 8, 5, relabelings=two_groups, claims=8)
    assert one.seeds == 17 and many.seeds > one.seeds  # one claim: the two-sided interval asks for more than the one-sided test
    n = many.seeds
    assert many.power == pytest.approx(exact(1.0, math.sqrt(2 / n), 2 * (n - 1), 1 - 0.05 / 8), abs=1e-6)


def test_no_seeds_are_enough_below_the_smallest_possible_p():
    """Without noise to speak of any two seeds would do for the interval; the null test needs 20 relabelings per claim."""
    big = dict(effect=100.0, se=1.0, dof=4, seeds=3)
    assert seeds.seeds_for_contrast(**big).seeds == 2
    assert seeds.seeds_for_contrast(**big, relabelings=two_groups).seeds == 4  # 1 / 20 at three seeds is not below 0.05
    assert seeds.seeds_for_contrast(**big, relabelings=lambda n: 2**n).seeds == 5
    assert seeds.seeds_for_contrast(**big, relabelings=lambda n: 2**n, claims=3).seeds == 6
    none = seeds.seeds_for_contrast(**big, relabelings=two_groups, claims=100)
    assert none.seeds is None and "the most looked at" in none.reason  # 1,000 permutations cannot show p below 0.05 / 100


def test_the_quick_form_of_verdicts_is_within_a_seed_of_the_exact_one():
    apart = []
    for effect in (0.4, 0.6, 0.9, 1.3):
        for n in (3, 5, 8):
            quick = statistics.seeds_for_interval(effect, math.sqrt(2 / n), 2 * (n - 1), n)
            apart.append(quick - max(seeds.seeds_for_contrast(effect, math.sqrt(2 / n), 2 * (n - 1), n).seeds, n + 1))
    assert set(apart) <= {-1, 0, 1}


# --- cells, by simulation ------------------------------------------------------------------------------------


def test_simulated_cells_have_the_power_of_the_t_test():
    """At 17 seeds and one standard deviation a t test has 80.7%; Welch's interval and the permutation test come to the same."""
    held = seeds.cells_claim(1.0, 1.0)(17, 4000, np.random.default_rng(0))
    assert held.mean() == pytest.approx(exact(1.0, math.sqrt(2 / 17), 32), abs=4 * math.sqrt(0.16 / 4000))
    rare = seeds.cells_claim(1.0, 1.0, claims=8)(17, 2000, np.random.default_rng(0))
    assert rare.mean() == pytest.approx(exact(1.0, math.sqrt(2 / 17), 32, 1 - 0.05 / 8), abs=0.035)


def test_cells_without_an_effect_seldom_hold():
    for within in (False, True):
        held = seeds.cells_claim(0.0, 1.0, within_seed=within)(6, 3000, np.random.default_rng(1))
        assert held.mean() <= 0.025 + 4 * math.sqrt(0.025 * 0.975 / 3000)


def test_seeds_that_share_data_are_worth_pairing():
    """Correlated runs of one seed: exchanged within the seed the test sees the difference, exchanged freely it sees their noise."""
    rng = lambda: np.random.default_rng(2)
    claim = lambda within: seeds.cells_claim(1.0, 1.0, within_seed=within, shared=0.8, claims=8)
    assert claim(True)(12, 600, rng()).mean() > claim(False)(12, 600, rng()).mean() + 0.05


@pytest.mark.parametrize("within, n", [(False, 3), (False, 8), (True, 4), (True, 11)])
def test_relabelings_are_those_of_the_exchange(within, n):
    """All of them, the observed first among the drawn, each a difference of two means of n runs."""
    signs = seeds._relabelings(n, within, 1000, np.random.default_rng(0))
    total = 2**n if within else two_groups(n)
    assert len(signs) == (total if total <= 1000 else 1001)
    assert (signs.sum(1) == 0).all() and (np.abs(signs) == 1).all()
    assert any((row == np.repeat([1, -1], n)).all() for row in signs)
    if total <= 1000:
        assert len({tuple(row) for row in signs}) == total
    if within:
        assert (signs[:, :n] == -signs[:, n:]).all()


def test_the_search_finds_the_smallest_number():
    found = seeds.seeds_for_power(seeds.cells_claim(1.5, 1.0), count=1000, relabelings=two_groups)
    closed = seeds.seeds_for_contrast(1.5, math.sqrt(2 / 5), 8, 5, relabelings=two_groups)
    n = found.seeds
    assert abs(n - closed.seeds) <= 1 and found.low - 0.02 < exact(1.5, math.sqrt(2 / n), 2 * (n - 1)) < found.high + 0.02
    assert found.tried[found.seeds] >= 0.8 > found.tried[found.seeds - 1]


@settings(max_examples=80)
@given(needed=st.integers(1, 70), least=st.integers(1, 5), most=st.integers(5, 64), floor=st.integers(1, 40))
def test_the_search_on_a_claim_that_holds_from_some_number_on(needed, least, most, floor):
    asked = []

    def claim(n, count, rng):
        asked.append(n)
        return np.full(count, n >= needed)

    found = seeds.seeds_for_power(claim, least=least, most=most, relabelings=lambda n: 1000 if n >= floor else 19)
    wanted = max(needed, least, floor)
    assert found.seeds == (wanted if wanted <= most else None)
    assert len(asked) == len(set(asked)) <= 13 and all(max(least, floor) <= n <= most for n in asked)
    assert bool(found.reason) == (found.seeds is None)


def test_the_interval_of_a_share_is_scipys():
    for hits, count in ((0, 10), (10, 10), (7, 10), (321, 400)):
        ends = stats.binomtest(hits, count).proportion_ci(0.95, method="exact")
        assert seeds.clopper_pearson(hits, count) == pytest.approx((ends.low, ends.high), rel=1e-9)


# --- claims about fits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("side, threshold", [(">", -0.6), ("<", -0.4)])
def test_a_lines_slope_has_the_power_of_its_t_test(side, threshold):
    x, n, sd = np.arange(5.0), 3, 0.25
    claim = seeds.fit_claim((line, {"a": 2.0, "b": -0.5}), {"x": x}, sd, "b", threshold, side)
    se = sd / math.sqrt(n * ((x - x.mean()) ** 2).sum())
    assert claim(n, 2000, np.random.default_rng(0)).mean() == pytest.approx(exact(0.1, se, 5 * n - 2), abs=4 * math.sqrt(0.25 / 2000))


CASES = {
    "power, lsq": ((forms.power, POWER), SIZES, 0.01, "alpha", 0.331, ">"),
    "power, below": ((forms.power, POWER), SIZES, 0.01, "E", 1.72, "<"),
    "chinchilla, allocation": ((forms.chinchilla, CHINCHILLA), GRID, 0.01, lambda p: p["alpha"] / (p["alpha"] + p["beta"]), 0.5, ">"),
}


@pytest.mark.parametrize("method", ["profile", "jackknife"])
@pytest.mark.parametrize("case", CASES)
def test_worlds_are_judged_as_their_data_would_be(case, method):
    """The same noise, fitted by the whole search and judged by Fit.interval, world by world."""
    (form, params), inputs, sd, quantity, threshold, side = CASES[case]
    n, worlds = 2, 20 if method == "profile" else 40
    held = seeds.fit_claim((form, params), inputs, sd, quantity, threshold, side, method)(n, worlds, np.random.default_rng(7))
    tiled = {name: np.tile(values, n) for name, values in inputs.items()}
    y = form.predict(params, tiled)
    expected = []
    for noise in sd * np.random.default_rng(7).standard_normal((worlds, len(y))):
        loss = y + noise if form.loss == "lsq" else y * np.exp(noise)
        interval = laws.fit(form, tiled | {"loss": loss}).interval(quantity, method=method)
        expected.append(interval.low > threshold if side == ">" else interval.high < threshold)
    assert 0 < sum(expected) < worlds  # or they could not differ
    assert held.tolist() == expected


def test_a_floor_planted_at_zero_is_judged_as_its_data_would_be():
    """Planted on a bound, where the logarithm of the floor has no slope to leave by."""
    planted = dict(E=0.0, A=400.0, alpha=0.34)
    held = seeds.fit_claim((forms.power, planted), SIZES, 0.02, "alpha", 0.36, "<")(2, 20, np.random.default_rng(3))
    y = forms.power.predict(planted, {"params": np.tile(SIZES["params"], 2)})
    expected = []
    for noise in 0.02 * np.random.default_rng(3).standard_normal((20, 12)):
        found = laws.fit(forms.power, {"params": np.tile(SIZES["params"], 2), "loss": y + noise})
        expected.append(found.interval("alpha").high < 0.36)
    assert held.tolist() == expected and 0 < sum(expected) < 20


def test_seeds_for_a_fitted_law_and_its_own_residuals():
    rng = np.random.default_rng(0)
    x = np.tile(SIZES["params"], 3)
    found = laws.fit(forms.power, {"params": x, "loss": forms.power.predict(POWER, {"params": x}) + 0.03 * rng.standard_normal(len(x))})
    by_residuals = seeds.seeds_for_power(seeds.fit_claim(found, SIZES, None, "alpha", 0.325, ">"), count=300)
    by_normal = seeds.seeds_for_power(seeds.fit_claim(found, SIZES, 0.03, "alpha", 0.325, ">"), count=300)
    assert by_residuals.seeds == pytest.approx(by_normal.seeds, rel=0.4) and by_residuals.seeds > 2
    more = seeds.seeds_for_power(seeds.fit_claim(found, SIZES, 0.06, "alpha", 0.325, ">"), count=300)
    assert more.seeds > 2.5 * by_normal.seeds  # four times, as the noise doubles


def test_one_seed_of_a_saturated_design_never_holds():
    claim = seeds.fit_claim((line, {"a": 0.0, "b": 1.0}), {"x": [0.0, 1.0, 2.0]}, 1e-3, "b", 0.5, ">", method="jackknife")
    assert not claim(1, 5, np.random.default_rng(0)).any()  # without one point two are left for two parameters
    assert claim(2, 5, np.random.default_rng(0)).all()


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(side=">="), ConfigError, "side = '>='"),
        (dict(method="bca"), ConfigError, "method = 'bca'"),
        (dict(threshold=math.nan), ConfigError, "threshold = nan"),
        (dict(noise=0.0), ConfigError, "noise = 0.0"),
        (dict(noise=None), ConfigError, "only a Fit"),
        (dict(quantity="gamma"), ValueError, "has the parameters"),
        (dict(design={"tokens": [1.0]}), ConfigError, "no column 'params'"),
        (dict(design={"params": [1e6, 1e7, 1e8]}), NotTestable, "needs 4"),
        (dict(planted=(forms.power, {"E": 1.0})), ConfigError, "parameters E"),
    ],
)
def test_mistakes_are_named(change, error, message):
    asked = dict(planted=(forms.power, POWER), design=SIZES, noise=0.01, quantity="alpha", threshold=0.3, side=">") | change
    with pytest.raises(error, match=message):
        seeds.fit_claim(**asked)


def test_plans_that_cannot_be_are_refused():
    claim = seeds.cells_claim(1.0, 1.0)
    for change, message in ((dict(power=1.0), "power = 1.0"), (dict(count=0), "count = 0"), (dict(least=9, most=8), "most = 8")):
        with pytest.raises(ConfigError, match=message):
            seeds.seeds_for_power(claim, **change)
    for change in (dict(effect=0.0), dict(se=0.0), dict(seeds=1)):
        with pytest.raises(ConfigError):
            seeds.seeds_for_contrast(**(dict(effect=1.0, se=1.0, dof=4, seeds=3) | change))
    with pytest.raises(ConfigError, match="correlation"):
        seeds.cells_claim(1.0, 1.0, shared=1.0)
