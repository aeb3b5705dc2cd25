"""Holm, permutation p values, counts and sample sizes against closed forms, brute force, SciPy and simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scaling_jax.laws import statistics

# --- Holm ----------------------------------------------------------------------------------------------------


def test_holm_by_hand():
    np.testing.assert_allclose(statistics.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(statistics.holm([0.5, 0.9, 0.4]), [1.0, 1.0, 1.0])
    np.testing.assert_allclose(statistics.holm([0.2]), [0.2])
    assert statistics.holm([]).size == 0


@settings(max_examples=80)
@given(st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.5])), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p):
    """adjusted_i = the largest Bonferroni p among all subsets that contain i (Marcus, Peritz and Gabriel 1976)."""
    subsets = [s for k in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), k)]
    want = [max(min(1.0, len(s) * min(p[j] for j in s)) for s in subsets if i in s) for i in range(len(p))]
    np.testing.assert_allclose(statistics.holm(p), want, rtol=1e-12, atol=1e-300)


@settings(max_examples=80)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.randoms(use_true_random=False))
def test_holm_keeps_the_order_and_never_helps(p, random):
    adjusted = statistics.holm(p)
    assert (adjusted >= p).all() and (adjusted <= np.minimum(1, len(p) * np.array(p))).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    order = random.sample(range(len(p)), len(p))
    np.testing.assert_array_equal(statistics.holm([p[i] for i in order]), adjusted[order])


@pytest.mark.parametrize("p", [[0.1, 1.1], [-0.1], [float("nan"), 0.5]])
def test_holm_takes_probabilities(p):
    with pytest.raises(ValueError, match=r"p_values = .*: each must lie in \[0, 1\]"):
        statistics.holm(p)


# --- permutation p values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("side, alternative", [(">", "greater"), ("<", "less")])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_exact_permutation_test(side, alternative, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0.7, 1, 5), rng.normal(0, 1, 5)
    difference = lambda a, b: a.mean() - b.mean()
    exact = stats.permutation_test((x, y), difference, n_resamples=np.inf, alternative=alternative).pvalue
    both, count = np.concatenate([x, y]), 4000

    def draw(rng):
        shuffled = rng.permutation(both)
        return difference(shuffled[:5], shuffled[5:])

    found = statistics.permutation_p(difference(x, y), draw, side, count)
    assert abs(found - exact) <= 4 * np.sqrt(exact * (1 - exact) / count) + 1 / count


def test_ties_and_what_cannot_be_compared_count_as_extreme():
    values = iter([1.0, 2.0, 2.0 * (1 - 1e-12), 3.0, np.nan, np.inf, -np.inf, 0.0, 0.0])
    p = statistics.permutation_p(2.0, lambda rng: next(values), ">", 9)
    assert p == (1 + 6) / 10  # milder are 1, 0, 0
    assert statistics.permutation_p(0.0, lambda rng: 0.0, "<", 50) == 1.0
    assert statistics.permutation_p(0.0, lambda rng: np.nan, ">", 50) == 1.0


def test_the_observation_counts_itself():
    assert statistics.permutation_p(5.0, lambda rng: 0.0, ">", 99) == 0.01
    assert statistics.permutation_p(-5.0, lambda rng: 0.0, "<", 99) == 0.01


def test_valid_under_the_null():
    rng = np.random.default_rng(0)
    p = np.array([statistics.permutation_p(rng.normal(), lambda r: r.normal(), ">", 19, seed=i) for i in range(1500)])
    assert (p <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1500)
    assert abs(p.mean() - 0.525) < 3 * 0.29 / np.sqrt(1500)  # uniform on 1/20, ..., 1


def test_the_seed_decides():
    p = [statistics.permutation_p(1.0, lambda rng: rng.normal(), ">", 200, seed) for seed in (0, 0, [0, 7], [0, 8])]
    assert p[0] == p[1] and len(set(p)) > 1


def test_permutation_refusals():
    with pytest.raises(ValueError, match="side = '>=': expected '>' or '<'"):
        statistics.permutation_p(0.0, lambda rng: 0.0, ">=")
    with pytest.raises(ValueError, match="count = 0: needs at least one permutation"):
        statistics.permutation_p(0.0, lambda rng: 0.0, ">", 0)


# --- counting ------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.lists(st.lists(st.sampled_from("abc"), min_size=0, max_size=5), max_size=4))
def test_arrangements_by_brute_force(groups):
    want = np.prod([len(set(itertools.permutations(group))) for group in groups], dtype=object)
    assert statistics.arrangements(groups) == want
    assert statistics.arrangements(groups, cap=7) == min(want, 7)


def test_arrangements_stop_at_the_cap():
    assert statistics.arrangements([range(30)] * 5) == statistics.CAP
    assert statistics.arrangements([np.array([1, 1, 1, 2, 2, 2])]) == 20


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=3), min_size=1, max_size=12))
def test_clusters_are_connected_components(groups):
    at = [(i, member) for i, group in enumerate(groups) for member in group]
    i, member = np.array(at).T
    n = len(groups)
    graph = coo_array((np.ones(len(at)), (i, n + member)), shape=(n + 13, n + 13))
    want = connected_components(graph, directed=False)[1][:n]
    found = statistics.clusters(groups)
    np.testing.assert_array_equal(found[:, None] == found, want[:, None] == want)


def test_codes_count_by_first_appearance():
    assert statistics.codes(["b", "a", "b", ("c", 1), "a"]).tolist() == [0, 1, 0, 2, 1]
    assert statistics.codes(iter(())).dtype == int


# --- sample sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [0.6, 1.0, 1.5])
def test_the_seeds_asked_for_give_the_power_asked_for(effect):
    """A mean at spread one, measured exactly at three seeds; at the n planned the t interval excludes zero in about 80%."""
    n = statistics.seeds_for_interval(effect, 1 / np.sqrt(3), 2, 3)
    worlds = lambda n: np.random.default_rng(0).normal(effect, 1, (20000, n))
    power = lambda x: (x.mean(1) - stats.t.ppf(0.975, x.shape[1] - 1) * stats.sem(x, axis=1) > 0).mean()
    assert 0.78 <= power(worlds(n)) <= 0.90
    assert power(worlds(n - 2)) < 0.80


def test_the_side_of_the_effect_does_not_matter():
    assert statistics.seeds_for_interval(-0.7, 0.5, 4, 3) == statistics.seeds_for_interval(0.7, 0.5, 4, 3)


def test_more_power_or_level_or_noise_needs_more_seeds():
    plan = lambda effect=0.7, se=0.5, **kw: statistics.seeds_for_interval(effect, se, 4, 3, **kw)
    assert plan() < plan(power=0.95) and plan() < plan(level=0.99) and plan() < plan(se=0.8) and plan() < plan(effect=0.5)


def test_plans_beyond_reach_and_plans_already_met():
    assert statistics.seeds_for_interval(0.0, 1.0, 2, 3) is None
    assert statistics.seeds_for_interval(1e-3, 1.0, 2, 3) is None
    assert statistics.seeds_for_interval(100.0, 1.0, 4, 3) == 4
    assert statistics.seeds_for_p(0.5, 0.05, 3) is None
    assert statistics.seeds_for_p(0.49, 0.05, 3) is None
    assert statistics.seeds_for_p(1e-9, 0.05, 3) == 4


@pytest.mark.parametrize("p", [0.01, 0.06, 0.2])
@pytest.mark.parametrize("needed", [0.05, 0.005])
def test_seeds_for_p_is_the_smallest_with_its_power(p, needed):
    n = statistics.seeds_for_p(p, needed, 3)
    power = lambda n: stats.norm.sf(stats.norm.isf(needed) - stats.norm.isf(p) * np.sqrt(n / 3))
    assert power(n) >= 0.8 - 1e-9 and (n == 4 or power(n - 1) < 0.8)
