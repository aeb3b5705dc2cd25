"""The descent against its own certificate on random tables of losses."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_jax.studies import tuning


def key(point):
    return tuple(point.values())


@st.composite
def tables(draw, seeds=2):
    """(axes, start, {values: losses}, noise): up to 64 points."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    axes = {f"axis{i}": tuple(10.0**j for j in range(n)) for i, n in enumerate(sizes)}
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    flat = draw(st.booleans())  # few different losses: ties
    loss = lambda: float(rng.integers(0, 3)) if flat else float(rng.normal())
    table = {values: [loss() for _ in range(seeds)] for values in itertools.product(*axes.values())}
    start = {name: draw(st.sampled_from(values)) for name, values in axes.items()}
    return axes, start, table, draw(st.sampled_from([0.0, 0.3, 1.0]))


def steps_away(axes, point):
    """Neighbours by brute force: all grid points at distance one."""
    index = lambda values: np.array([list(axis).index(v) for axis, v in zip(axes.values(), values, strict=True)])
    every = itertools.product(*axes.values())
    return {values for values in every if np.abs(index(values) - index(key(point))).sum() == 1}


@settings(max_examples=150)
@given(tables())
def test_ends_where_no_neighbour_helps_beyond_noise(world):
    axes, start, table, noise = world
    found = tuning.descend(axes, start, lambda p: table[key(p)], noise)
    here, bar = np.mean(table[key(found.point)]), noise * math.sqrt(2 / 2)
    assert found.certified and found.needed == ()
    assert all(np.mean(table[values]) >= here - bar for values in steps_away(axes, found.point))
    assert here <= np.mean(table[key(start)])
    visited = [key(p) for p in found.visited]
    assert len(set(visited)) == len(visited) and {key(start), key(found.point)} | steps_away(axes, found.point) <= set(visited)
    want = {name for name, values in axes.items() if len(values) > 1 and found.point[name] in (values[0], values[-1])}
    assert set(found.edges) == want


@settings(max_examples=100)
@given(tables(), st.randoms(use_true_random=False))
def test_revealing_losses_one_by_one_ends_at_the_same_point(world, random):
    axes, start, table, noise = world
    known, asked = {}, set()
    whole = tuning.descend(axes, start, lambda p: table[key(p)], noise)
    for _ in range(len(table) + 1):
        found = tuning.descend(axes, start, lambda p: known.get(key(p)), noise)
        around = {key(found.point)} | steps_away(axes, found.point)
        assert {key(p) for p in found.needed} == around - set(known) and len(found.needed) == len(around - set(known))
        assert found.certified == (not found.needed)
        if found.certified:
            break
        asked |= {key(p) for p in found.needed}
        new = key(random.choice(found.needed))
        known[new] = table[new]
    assert found == whole
    assert asked == set(known) == {key(p) for p in found.visited}  # nothing was asked for in vain


def test_a_step_must_gain_more_than_one_standard_error():
    axes, start = {"rate": (1, 2, 3)}, {"rate": 2}
    losses = {1: [2.0] * 2, 2: [1.0] * 2, 3: [0.5] * 2}
    walk = lambda noise: tuning.descend(axes, start, lambda p: losses[p["rate"]], noise)
    assert walk(0.49).point == {"rate": 3} and walk(0.49).edges == ("rate",)  # 0.49 sqrt(2 / 2) < 0.5
    assert walk(0.5).point == {"rate": 2} and walk(0.5).edges == ()
    losses = {rate: values * 4 for rate, values in losses.items()}  # eight seeds halve the error
    assert walk(0.99).point == {"rate": 3} and walk(1.0).point == {"rate": 2}


def test_the_best_of_several_helpful_steps_is_taken():
    axes, start = {"a": (1, 2, 3), "b": (1, 2, 3)}, {"a": 2, "b": 2}
    losses = {(2, 2): 5.0, (1, 2): 4.0, (2, 3): 3.0, (1, 3): 6.0, (3, 3): 6.0}
    found = tuning.descend(axes, start, lambda p: [losses.get(key(p), 9.0)])
    assert found.point == {"a": 2, "b": 3} and found.edges == ("b",)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_run_that_diverged_is_worst(bad):
    axes, table = {"rate": (1, 2, 3, 4)}, {1: [3.0, 3.0], 2: [2.0, bad], 3: [4.0, 4.0], 4: [bad, bad]}
    losses = lambda p: table[p["rate"]]
    assert tuning.descend(axes, {"rate": 1}, losses).point == {"rate": 1}
    assert tuning.descend(axes, {"rate": 2}, losses).point == {"rate": 1}
    assert tuning.descend(axes, {"rate": 4}, losses).point == {"rate": 3}
    assert tuning.mean([1.0, bad]) == math.inf


def test_an_axis_of_one_value_has_no_edge():
    found = tuning.descend({"decay": (0.1,), "rate": (1, 2, 3)}, {"decay": 0.1, "rate": 2}, lambda p: [abs(p["rate"] - 2.0)])
    assert found.edges == () and [key(p) for p in found.visited] == [(0.1, 2), (0.1, 1), (0.1, 3)]


def test_refusals():
    with pytest.raises(ValueError, match=r"start rate = 5: not on its grid \(1, 2\)"):
        tuning.descend({"rate": (1, 2)}, {"rate": 5}, lambda p: [0.0])
    with pytest.raises(RuntimeError, match="did not settle in 5 moves"):
        tuning.descend({"rate": tuple(range(20))}, {"rate": 0}, lambda p: [-float(p["rate"])], limit=5)


@settings(max_examples=60)
@given(st.lists(st.lists(st.floats(-10, 10), min_size=1, max_size=5), max_size=5))
def test_seed_noise_is_the_pooled_deviation(groups):
    freedom = sum(len(g) - 1 for g in groups)
    want = math.sqrt(sum(np.var(g) * len(g) for g in groups) / freedom) if freedom else 0.0
    assert tuning.seed_noise(groups) == pytest.approx(want, rel=1e-9, abs=1e-12)
    assert tuning.seed_noise(iter(groups)) == tuning.seed_noise(groups)


def test_seed_noise_of_one_group_is_numpys():
    x = np.random.default_rng(0).normal(size=7)
    assert tuning.seed_noise([x.tolist()]) == pytest.approx(x.std(ddof=1), rel=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_run_says_nothing_about_seed_noise(bad):
    """Otherwise the noise is not a number, no step helps, and the start is certified."""
    assert tuning.seed_noise([[1.0, 2.0], [bad, 1.0]]) == tuning.seed_noise([[1.0, 2.0]])
    assert tuning.seed_noise([[bad, 1.0]]) == 0.0


def test_nearest():
    assert tuning.nearest((1, 10, 100), 30) == 10 and tuning.nearest((1, 10, 100), 33) == 100  # on a log scale: 31.6 is between
    assert tuning.nearest((0.0, 0.1, 1.0), 0.0) == 0.0 and tuning.nearest((0.0, 0.1, 1.0), 0.09) == 0.1
    assert tuning.nearest((1, 2, 3), None) == 2 and tuning.nearest((1, 2), None) == 2
