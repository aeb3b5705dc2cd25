"""The jackknife against scipy's t intervals, and its coverage at the numbers of seeds studies use."""

import itertools

import numpy as np
import pytest
from scipy import stats

from scaling_jax.laws import intervals
from scaling_jax.laws.form import NotTestable

REPEATS = 4000  # worlds per coverage figure: its standard error at 95% is 0.35%


def strata_of(samples):
    return {cell: tuple(f"{cell}{i}" for i in range(len(values))) for cell, values in samples.items()}


def kept(samples, cell, dropped):
    """Values of a cell without the dropped runs; raises NotTestable when none is left."""
    rows = [i for i in range(len(samples[cell])) if f"{cell}{i}" not in dropped]
    if not rows:
        raise NotTestable(f"no run left in cell {cell}")
    return samples[cell][rows]


def mean_of(samples, cell):
    return lambda dropped: kept(samples, cell, dropped).mean(0)


def difference(samples):
    return lambda dropped: kept(samples, "a", dropped).mean(0) - kept(samples, "b", dropped).mean(0)


def slope(samples):
    """Least-squares slope of the cells' means over x = 0, 1, ..., the shape of a log-log law."""
    x = np.arange(len(samples)) - (len(samples) - 1) / 2
    return lambda dropped: np.tensordot(x, np.stack([kept(samples, c, dropped).mean(0) for c in samples]), 1) / (x @ x)


def minimum(samples):
    """Location of the minimum of a parabola through the cells' means: a ratio, not linear in the runs."""
    design = np.linalg.pinv(np.vander(np.arange(len(samples)), 3))

    def statistic(dropped):
        a, b, _ = np.tensordot(design, np.stack([kept(samples, c, dropped).mean(0) for c in samples]), 1)
        return -b / (2 * a)

    return statistic


def ensemble_limit(errors):
    """Loss of an infinite ensemble, 2 L_2 - L_1, from all teams of one and two: every row depends on one or two runs.

    errors [n, D, worlds]: what model i gets wrong; a team's loss is the mean square of its mean error.
    """

    def statistic(dropped):
        models = [i for i in range(len(errors)) if f"a{i}" not in dropped]
        if len(models) < 2:
            raise NotTestable("a limit needs teams of two")
        singles = np.mean([(errors[i] ** 2).mean(0) for i in models], axis=0)
        pairs = np.mean([(((errors[i] + errors[j]) / 2) ** 2).mean(0) for i, j in itertools.combinations(models, 2)], axis=0)
        return 2 * pairs - singles

    return statistic


def coverage(statistic, strata, truth):
    found = intervals.jackknife(statistic, strata)
    return float(((found.low < truth) & (truth < found.high)).mean())


def world(case, n, rng):
    """(statistic, strata, truth) of REPEATS worlds at n runs per cell."""
    normal = lambda cells, spread: {c: rng.normal(0.0, s, (n, REPEATS)) for c, s in zip(cells, spread, strict=True)}
    if case == "mean":
        samples = normal("a", [1])
        return mean_of(samples, "a"), strata_of(samples), 0.0
    if case == "difference":
        samples = normal("ab", [1, 1])
        return difference(samples), strata_of(samples), 0.0
    if case == "difference, spreads 1 and 5":
        samples = normal("ab", [1, 5])
        return difference(samples), strata_of(samples), 0.0
    if case == "slope of 5 cells":
        samples = normal("abcde", [1, 1, 1, 1, 1])
        return slope(samples), strata_of(samples), 0.0
    if case == "minimum of a parabola":
        samples = {c: (i - 2.3) ** 2 + rng.normal(0.0, 0.5, (n, REPEATS)) for i, c in enumerate("abcde")}
        return minimum(samples), strata_of(samples), 2.3
    bias = np.linspace(0.5, 1.5, 16)[:, None]
    errors = bias + rng.normal(0.0, 1.0, (n, 16, REPEATS))
    return ensemble_limit(errors), {"a": tuple(f"a{i}" for i in range(n))}, float((bias**2).mean())


# Asserted bounds; what was found (4,000 worlds): means and differences are t intervals and cover 94-97% at every n. Sums
# over many cells cover 96-98% at n = 3, because the estimated degrees of freedom come out low: wide, never narrow. The
# ensemble limit covers 95-96% where its noise is linear in the runs, as here.
@pytest.mark.parametrize("n", [3, 5, 8])
@pytest.mark.parametrize(
    "case", ["mean", "difference", "difference, spreads 1 and 5", "slope of 5 cells", "minimum of a parabola", "ensemble limit"]
)
def test_coverage(case, n):
    found = coverage(*world(case, n, np.random.default_rng([n, len(case)])))
    print(f"{case}, n = {n}: {found:.1%} of {REPEATS}")
    assert 0.93 <= found <= (0.985 if n == 3 else 0.98)


def test_percentile_bootstrap_would_not_do():
    """The reason this module exists: at n = 3 the percentile bootstrap is not an interval of 95%."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 3))
    low, high = np.percentile(x[:, rng.integers(0, 3, (400, 3))].mean(-1), [2.5, 97.5], axis=1)
    assert ((low < 0) & (high > 0)).mean() < 0.85


def test_a_mean_has_the_t_interval():
    x = np.random.default_rng(0).normal(size=7)
    found = intervals.jackknife(mean_of({"a": x}, "a"), strata_of({"a": x}), level=0.9)
    low, high = stats.t.interval(0.9, 6, x.mean(), stats.sem(x))
    np.testing.assert_allclose([found.low, found.high, found.dof], [low, high, 6], rtol=1e-12)


@pytest.mark.parametrize("sizes", [(3, 3), (5, 3), (2, 9)])
def test_a_difference_has_the_welch_interval(sizes):
    rng = np.random.default_rng(sizes)
    samples = {"a": rng.normal(1, 1, sizes[0]), "b": rng.normal(0, 4, sizes[1])}
    found = intervals.jackknife(difference(samples), strata_of(samples))
    test = stats.ttest_ind(samples["a"], samples["b"], equal_var=False)
    want = test.confidence_interval(0.95)
    np.testing.assert_allclose([found.low, found.high, found.dof], [want.low, want.high, test.df], rtol=1e-12)


def test_arrays_are_their_components():
    rng = np.random.default_rng(0)
    samples = {"a": rng.normal(size=(4, 3)), "b": rng.normal(size=(5, 3))}
    together = intervals.jackknife(difference(samples), strata_of(samples))
    for k in range(3):
        alone = intervals.jackknife(difference({c: v[:, k] for c, v in samples.items()}), strata_of(samples))
        np.testing.assert_allclose([together.low[k], together.high[k]], [alone.low, alone.high], rtol=1e-12)


def test_a_run_in_many_rows_counts_once():
    """Copying every row ten times must not narrow the interval."""
    samples = {"a": np.random.default_rng(0).normal(size=(4,))}
    copied = lambda dropped: np.repeat(kept(samples, "a", dropped), 10).mean()
    once = intervals.jackknife(mean_of(samples, "a"), strata_of(samples))
    assert intervals.jackknife(copied, strata_of(samples)).se == pytest.approx(once.se, rel=1e-12)


def test_a_cell_without_influence_needs_no_seeds():
    samples = {"a": np.array([1.0, 2.0, 4.0]), "b": np.array([7.0])}
    found = intervals.jackknife(mean_of(samples, "a"), strata_of(samples))
    assert found == intervals.jackknife(mean_of(samples, "a"), {"a": strata_of(samples)["a"]})


@pytest.mark.parametrize("used", [2, 5])
def test_unused_runs_bring_no_degrees_of_freedom(used):
    """A mean of some of a cell's six runs: never narrower than the t interval of those, and hardly wider where one is unused."""
    x = np.random.default_rng(used).normal(size=6)
    statistic = lambda dropped: np.mean([x[i] for i in range(used) if f"a{i}" not in dropped])
    strata = {"a": tuple(f"a{i}" for i in range(6))}
    found = intervals.jackknife(statistic, strata)
    low, high = stats.t.interval(0.95, used - 1, x[:used].mean(), stats.sem(x[:used]))
    assert (intervals.used(statistic, strata, *intervals.deletions(statistic, strata)), found.dof) == ({"a": used}, used - 1)
    assert low >= found.low > low - (0.03 if used == 5 else 1) * (high - low) and high <= found.high


def test_a_run_at_the_mean_is_used():
    """Leaving it out moves nothing; it is an observation all the same, and the interval is the classical one."""
    x = np.array([1.0, 2.0, 3.0])
    found = intervals.jackknife(mean_of({"a": x}, "a"), strata_of({"a": x}))
    low, high = stats.t.interval(0.95, 2, 2.0, stats.sem(x))
    np.testing.assert_allclose([found.low, found.high, found.dof], [low, high, 2], rtol=1e-12)


@pytest.mark.parametrize("pooled", [False, True])
def test_a_cell_of_one_run_that_matters_is_not_testable(pooled):
    """Whether leaving the run out changes the value (a pooled mean) or makes it impossible (a difference)."""
    samples = {"a": np.array([1.0, 2.0, 4.0]), "b": np.array([7.0])}

    def mean_of_all(dropped):
        return np.mean([x for c in samples for i, x in enumerate(samples[c]) if f"{c}{i}" not in dropped])

    with pytest.raises(NotTestable, match="cell b has one run .* 2 seeds or more"):
        intervals.jackknife(mean_of_all if pooled else difference(samples), strata_of(samples))


def test_a_deletion_that_is_impossible_or_infinite_is_not_testable():
    errors = np.ones((2, 16, 1))
    with pytest.raises(NotTestable, match=r"without run a0 of cell a \(2 seeds\), a limit needs teams of two"):
        intervals.jackknife(ensemble_limit(errors), {"a": ("a0", "a1")})
    samples = {"a": np.array([1.0, np.inf, 2.0])}
    with pytest.raises(NotTestable, match="not a finite number"):
        intervals.jackknife(mean_of(samples, "a"), strata_of(samples))
    with pytest.raises(NotTestable, match="without run a2 .* not a finite number"):
        intervals.jackknife(lambda dropped: np.inf if "a2" in dropped else 1.0, {"a": ("a0", "a1", "a2")})


@pytest.mark.parametrize("values", [[0.1, 0.1, 0.1], [3.0, 3.0, 3.0]])
def test_no_variation_is_no_certainty(values):
    """Equal seeds, or a statistic that no seed moves, must not give an interval of width zero."""
    samples = {"a": np.array(values)}
    for statistic in (mean_of(samples, "a"), lambda dropped: 5.0):
        found = intervals.jackknife(statistic, strata_of(samples))
        assert found.se == 0 and found.dof == 0 and np.isnan(found.low) and np.isnan(found.high)


def test_one_cell_without_variation_leaves_the_others():
    samples = {"a": np.array([1.0, 2.0, 4.0]), "b": np.array([0.1, 0.1, 0.1])}
    found = intervals.jackknife(difference(samples), strata_of(samples))
    assert found.dof == pytest.approx(2) and found.se == pytest.approx(stats.sem(samples["a"]))


def test_a_run_belongs_to_one_cell():
    with pytest.raises(ValueError, match="'r' is listed twice"):
        intervals.jackknife(lambda dropped: 0.0, {"a": ("r", "s"), "b": ("r",)})


def test_one_call_per_run():
    calls = []
    samples = {"a": np.arange(3.0), "b": np.arange(4.0)}
    intervals.jackknife(lambda dropped: calls.append(dropped) or difference(samples)(dropped), strata_of(samples))
    assert len(calls) == 1 + 3 + 4 + 1, "a1 lies at the mean of its cell: whether it is used is asked once more"
