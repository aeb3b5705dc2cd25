"""Aggregates, profiles, improvement and the stratified bootstrap against SciPy, the paper's own library, and closed forms.

GOLDEN was printed once by rliable 1.2.0 (arch 7.2.0, NumPy 2.4.6) on the tables below: 200,000 replicates, 50,000 for the
probability of improvement; its draws are not reproducible, so intervals agree to the noise of both sides.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scaling_jax.laws import bootstrap, reliability
from scaling_jax.records import ConfigError


def wave(n, m, a):
    """A heavy-tailed table that needs no random generator."""
    i = np.arange(n * m, dtype=np.float64).reshape(n, m)
    return np.exp(1.5 * np.sin(a * i + 0.3 * np.cos(i))) - 0.5


X, Y, BIG = wave(7, 5, 1.3), wave(4, 5, 2.1), wave(9, 11, 0.7)
X[0, 1] = X[1, 1]
Y[0, 2] = Y[1, 2] = X[3, 2]  # ties within a table and between two

GOLDEN = {  # iqm, median, mean, optimality gap
    "x": (0.6325275678023171, 0.5304935097321196, 1.1283486410798957, 0.5506066694209807),
    "y": (0.7892835948054581, 1.1886220446779772, 1.1191307142507267, 0.47921856947213937),
    "big": (0.7140978519858413, 1.147885662120648, 1.1453300341910975, 0.565092340517563),
}
GOLDEN_ENDS = {
    "percentile": (
        (0.43264912573200615, 0.14597739428831463, 0.8535683755765607, 0.48016391535502845),
        (1.0649131447990725, 1.087908400487612, 1.400066380256403, 0.6218285349023741),
    ),
    "basic": (
        (0.20217879713511988, -0.02705005394006288, 0.857373112114721, 0.47972756258320903),
        (0.8319405094534675, 0.9150096251759245, 1.4023232299397614, 0.6211163142627232),
    ),
    "tasks": (
        (-0.11356311645034783, -0.19375055194720808, 0.059958824111243945, 0.1411749368559514),
        (2.5503343441447086, 2.9204235222053727, 2.338855990195316, 0.9747369795937536),
    ),
}
scores = st.floats(-5, 5).map(lambda v: round(v, 1))  # coarse, so that ties are common


@st.composite
def tables(draw, runs=6, tasks=5):
    n, m = draw(st.integers(1, runs)), draw(st.integers(1, tasks))
    return np.array(draw(st.lists(scores, min_size=n * m, max_size=n * m))).reshape(n, m)


# --- aggregates ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, table", [("x", X), ("y", Y), ("big", BIG)])
def test_aggregates_are_those_of_the_papers_library(name, table):
    np.testing.assert_allclose(reliability.aggregates(table), GOLDEN[name], rtol=1e-13)


def test_the_optimality_gap_at_another_threshold():
    np.testing.assert_allclose([reliability.optimality_gap(x, 0.4) for x in (X, BIG)], [0.21416653233540034, 0.23958396307066795])


def test_the_fixtures_of_the_papers_tests():
    x, y = [[1, 2], [2, 2], [1, 1], [2, 1]], [[1, 1], [2, 2], [3, 3]]
    assert reliability.aggregates(x)[:3].tolist() == [1.5, 1.5, 1.5] and reliability.aggregates(y)[:3].tolist() == [2, 2, 2]
    assert reliability.improvement(x, y) == pytest.approx(1 / 3)
    table = np.arange(80).reshape(5, 16)
    for method in bootstrap.METHODS:
        for tasks in (False, True):
            found = bootstrap.interval(reliability.aggregates, table, count=300, method=method, tasks=tasks and method != "bca")
            assert (found.low < found.value).all() and (found.value < found.high).all()


@settings(max_examples=60)
@given(tables(), st.sampled_from([0.0, 0.1, 0.25, 0.4]))
def test_trimming_is_scipys(x, cut):
    assert reliability.trimmed_mean(x, cut) == pytest.approx(stats.trim_mean(x, cut, axis=None), abs=1e-12)


@settings(max_examples=40)
@given(st.lists(st.lists(scores, min_size=1, max_size=6), min_size=1, max_size=5))
def test_tasks_with_different_numbers_of_runs(columns):
    """Pooled where the definition pools, task by task where it averages tasks."""
    found, pooled = reliability.from_tasks(columns), np.concatenate([np.array(c, float) for c in columns])
    means = [np.mean(c) for c in columns]
    want = stats.trim_mean(pooled, 0.25), np.median(means), np.mean(means), 1 - np.minimum(pooled, 1).mean()
    np.testing.assert_allclose(reliability.aggregates(found), want, atol=1e-12)


@settings(max_examples=40)
@given(tables(), st.floats(0.1, 3), st.floats(-2, 2), st.randoms(use_true_random=False))
def test_what_no_aggregate_depends_on(x, scale, shift, random):
    """The order of runs and of tasks; and all but the gap go along with a change of units."""
    rows, columns = list(range(len(x))), list(range(x.shape[1]))
    random.shuffle(rows), random.shuffle(columns)
    np.testing.assert_allclose(reliability.aggregates(x[rows][:, columns]), reliability.aggregates(x), atol=1e-12)
    np.testing.assert_allclose(reliability.aggregates(scale * x + shift)[:3], scale * reliability.aggregates(x)[:3] + shift, atol=1e-9)
    assert reliability.optimality_gap(x) == pytest.approx(1 - reliability.mean(np.minimum(x, 1)))


def test_an_outlier_moves_the_mean_and_not_the_interquartile_mean():
    wild = X.copy()
    wild[np.unravel_index(X.argmax(), X.shape)] = 1e6
    assert reliability.iqm(wild) == reliability.iqm(X) and reliability.mean(wild) > 1e4


# --- profiles and improvement --------------------------------------------------------------------------------


def test_profiles_are_those_of_the_papers_library():
    taus = [-0.4, 0.0, 0.5, 1.0, 2.0, 3.5]
    np.testing.assert_allclose(reliability.profile(X, taus), np.array([35, 25, 16, 13, 9, 6]) / 35, rtol=1e-13)
    np.testing.assert_allclose(reliability.profile_of_means(X, taus), [1.0, 0.8, 0.6, 0.4, 0.4, 0.0])
    assert reliability.profile([[1.0, 2.0]], [1.0]) == [0.5], "above, not at"


@settings(max_examples=40)
@given(tables())
def test_a_profile_falls_and_its_area_is_the_mean(x):
    """Between -5.05 and 5.05 the step function is integrated exactly by midpoints between values with one decimal."""
    taus = np.arange(-5.05, 5.06, 0.1)
    found = reliability.profile(x, taus)
    assert (np.diff(found) <= 0).all() and found[0] == 1 and found[-1] == 0
    assert -5.05 + 0.1 * found.sum() - 0.05 == pytest.approx(x.mean(), abs=1e-9)
    assert 1 - reliability.profile(x, [0.0])[0] == pytest.approx(stats.ecdf(x.reshape(-1)).cdf.evaluate(0.0))


@settings(max_examples=60)
@given(st.data())
def test_improvement_is_mann_whitney(data):
    x = data.draw(tables())
    y = data.draw(tables(tasks=1).map(lambda y: np.repeat(y, x.shape[1], axis=1)))
    want = [stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)) for a, b in zip(x.T, y.T, strict=True)]
    np.testing.assert_allclose(reliability.by_task(x, y), want, atol=1e-12)
    assert reliability.improvement(x, y) + reliability.improvement(y, x) == pytest.approx(1)
    assert reliability.improvement(x, x) == pytest.approx(0.5)


def test_improvement_is_that_of_the_papers_library():
    assert reliability.improvement(X, Y) == pytest.approx(0.49642857142857155)
    assert reliability.improvement(Y, X) == pytest.approx(0.5035714285714287)


# --- the bootstrap -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", GOLDEN_ENDS)
def test_intervals_are_those_of_the_papers_library(kind):
    method = "basic" if kind == "basic" else "percentile"
    found = bootstrap.interval(reliability.aggregates, X, method=method, tasks=kind == "tasks", seed=1)
    noise = np.array([0.05, 0.1, 0.05, 0.05]) * found.se  # of both sides; a median of five means has few values near its ends
    assert (np.abs(np.stack([found.low, found.high]) - GOLDEN_ENDS[kind]) < noise).all()


def test_two_samples_are_resampled_independently():
    found = bootstrap.interval(reliability.improvement, X, Y, seed=1)
    np.testing.assert_allclose([found.low, found.high], [0.3535714285714286, 0.6357142857142857], atol=0.011)  # steps of 1 / 140
    difference = lambda a, b: reliability.mean(a) - reliability.mean(b)
    se = bootstrap.interval(difference, X, X, count=20_000).se
    assert se == pytest.approx(np.sqrt(2) * bootstrap.interval(reliability.mean, X, count=20_000).se, rel=0.03)


def test_the_spread_of_the_mean_is_known():
    """Of the mean of task means: sum_j s_j^2 / n_j / m^2, s_j^2 with denominator n_j; with tasks drawn, the law of total variance."""
    found = bootstrap.interval(reliability.mean, X, seed=3)
    assert found.se == pytest.approx(np.sqrt((X.var(0) / 7).sum()) / 5, rel=0.015)
    within, between = (X.var(0) / 7).mean() / 5, X.mean(0).var() / 5
    assert bootstrap.interval(reliability.mean, X, tasks=True, seed=3).se == pytest.approx(np.sqrt(within + between), rel=0.015)
    uneven = reliability.from_tasks([[0.0, 1.0], [0.0, 1.0, 1.0, 3.0, 9.0]])
    want = np.sqrt(np.var([0, 1]) / 2 + np.var([0, 1, 1, 3, 9]) / 5) / 2
    assert bootstrap.interval(reliability.mean, uneven, seed=3).se == pytest.approx(want, rel=0.015)


SKEWED = wave(12, 2, 1.3) ** 2
LATTICE = (wave(8, 2, 1.3) > 1).astype(float)  # replicates tie with the value


@pytest.mark.parametrize("method", bootstrap.METHODS)
@pytest.mark.parametrize(
    "table, statistic", [(X, "mean"), (X, "gap"), (SKEWED, "mean"), (LATTICE, "mean")], ids=["mean", "gap", "skewed", "lattice"]
)
def test_intervals_are_scipys(method, table, statistic):
    """scipy.stats.bootstrap of several samples resamples each by itself: the tasks."""

    def of_tasks(*columns, axis=-1):
        if statistic == "mean":
            return np.mean([c.mean(axis) for c in columns], axis=0)
        return 1 - np.mean([np.minimum(c, 1).mean(axis) for c in columns], axis=0)

    ours = {"mean": reliability.mean, "gap": reliability.optimality_gap}[statistic]
    want = stats.bootstrap(tuple(table.T), of_tasks, n_resamples=30_000, method=method, rng=np.random.default_rng(0))
    found = bootstrap.interval(ours, table, count=30_000, method=method)
    np.testing.assert_allclose([found.low, found.high], want.confidence_interval, atol=0.1 * found.se)
    if method == "bca" and table is SKEWED:
        assert found.high - bootstrap.interval(ours, table, count=30_000).high > 0.2 * found.se, "the correction is no rounding here"


def test_acceleration_of_two_samples_is_scipys():
    difference = lambda a, b: reliability.mean(a) - reliability.mean(b)
    want = stats.bootstrap(
        (X[:, 0], Y[:, 0]),
        lambda a, b, axis=-1: a.mean(axis) - b.mean(axis),
        n_resamples=30_000,
        method="bca",
        rng=np.random.default_rng(0),
    )
    found = bootstrap.interval(difference, X[:, :1], Y[:, :1], count=30_000, method="bca")
    np.testing.assert_allclose([found.low, found.high], want.confidence_interval, atol=0.1 * found.se)


@pytest.mark.parametrize("runs, tasks", [(3, 40), (10, 40)])
def test_coverage_of_many_tasks(runs, tasks):
    """2 Phi(1.96 sqrt((n - 1) / n)) - 1, of a mean of normal scores: 0.890 at three runs, 0.937 at ten."""
    rng, hits = np.random.default_rng(runs), 0
    for seed in range(600):
        found = bootstrap.interval(reliability.mean, rng.normal(size=(runs, tasks)), count=400, seed=seed)
        hits += found.low <= 0 <= found.high
    want = 2 * stats.norm.cdf(1.96 * np.sqrt((runs - 1) / runs)) - 1
    assert abs(hits / 600 - want) < 3.5 * np.sqrt(want * (1 - want) / 600)


def test_every_table_drawn_has_each_task_from_its_own_runs():
    drawn = bootstrap.resampled(reliability.from_tasks([[1.0, 2.0], [3.0, 4.0, 5.0]]), 4000)
    first, second = drawn.tasks
    for values, runs in ((first, (1, 2)), (second, (3, 4, 5))):
        assert set(np.unique(values)) == set(runs)
        share = [(values == v).mean() for v in runs]
        np.testing.assert_allclose(share, 1 / len(runs), atol=0.02)
    assert abs(np.corrcoef(first[:, 0], first[:, 1])[0, 1]) < 0.06 and abs(np.corrcoef(first[:, 0], second[:, 0])[0, 1]) < 0.06


def test_the_seed_decides_and_the_chunk_does_not(monkeypatch):
    calls = [bootstrap.replicates(reliability.improvement, X, Y, count=500, seed=s) for s in (5, 5, 6)]
    np.testing.assert_array_equal(calls[0], calls[1])
    assert (calls[0] != calls[2]).any()
    tasks = bootstrap.replicates(reliability.iqm, X, count=500, tasks=True, seed=5)
    np.random.seed(0)  # noqa: NPY002 - a draw from the global generator would show
    monkeypatch.setattr(bootstrap, "CHUNK", 100)
    np.testing.assert_array_equal(bootstrap.replicates(reliability.improvement, X, Y, count=500, seed=5), calls[0])
    np.testing.assert_array_equal(bootstrap.replicates(reliability.iqm, X, count=500, tasks=True, seed=5), tasks)


def test_a_table_without_spread_has_no_width():
    for method in bootstrap.METHODS:
        found = bootstrap.interval(reliability.aggregates, np.full((3, 4), 0.5), count=100, method=method)
        np.testing.assert_allclose(np.stack([found.low, found.high]), [[0.5] * 4] * 2, atol=1e-12)


def test_a_curve_resamples_whole_runs():
    """Evaluations that rise by a constant keep the width of the first: the same runs are drawn for all."""
    found = bootstrap.curve(X[:, :, None] + np.arange(3.0), count=2000)
    np.testing.assert_allclose(found.value, reliability.iqm(X) + np.arange(3))
    np.testing.assert_allclose(found.high - found.low, (found.high - found.low)[0])
    assert found.low.shape == (3,)


def test_ranks_of_two_agents_are_the_improvement():
    found = bootstrap.task_ranks({"x": X, "y": Y}, count=40_000)
    assert found.shape == (5, 2, 2)
    np.testing.assert_allclose(found.sum(1), 1), np.testing.assert_allclose(found.sum(2), 1)
    np.testing.assert_allclose(found[:, 0, 0], reliability.by_task(X, Y), atol=0.012)


def test_ranks_by_an_aggregate():
    found = bootstrap.ranks({"x": X, "y": X + 0.01, "z": X + 10}, count=4000)
    np.testing.assert_allclose(found.sum(0), 1), np.testing.assert_allclose(found.sum(1), 1)
    assert found[2].tolist() == [1, 0, 0] and 0.4 < found[1, 1] < 0.6
    even = bootstrap.ranks({"x": np.ones((2, 2)), "y": np.ones((2, 2))}, count=10)
    np.testing.assert_allclose(even, 0.5)
    gap = bootstrap.ranks({"x": X, "z": X + 10}, reliability.optimality_gap, count=100, larger_is_better=False)
    assert gap[1].tolist() == [1, 0]


def test_fifty_thousand_replicates_of_the_papers_table_fit_in_memory():
    """Chunks hold half a million scores; all at once would be 130 million."""
    sizes = []

    def watched(x):
        sizes.append(x.flat.size)
        return x.flat[..., 0]

    bootstrap.replicates(watched, np.zeros((100, 26)), count=600)
    assert max(sizes) <= bootstrap.CHUNK and len(sizes) > 1


# --- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: reliability.iqm([1.0, 2.0]), r"shape \(2,\), expected \[runs, tasks\].*x\[:, None\]"),
        (lambda: reliability.iqm(np.zeros((2, 3, 4))), r"shape \(2, 3, 4\).*bootstrap.curve"),
        (lambda: reliability.iqm(np.zeros((0, 3))), r"shape \(0, 3\)"),
        (lambda: reliability.iqm([[1.0, np.nan], [1.0, 2.0]]), r"scores\[run 0, task 1\] = nan.*from_tasks"),
        (lambda: reliability.iqm([[1.0, 2.0], [1.0]]), "not a table of numbers.*from_tasks"),
        (lambda: reliability.iqm([["a"]]), "not a table of numbers"),
        (lambda: reliability.from_tasks([[1.0], []]), "task 1: shape .0,., expected the scores of its runs"),
        (lambda: reliability.from_tasks([[1.0], [2.0, np.inf]]), r"scores\[run 1, task 1\] = inf"),
        (lambda: reliability.from_tasks([]), "no task"),
        (lambda: reliability.trimmed_mean(X, 0.5), "cut = 0.5: expected a share from 0"),
        (lambda: reliability.improvement(X, Y[:, :3]), "x has 5 tasks and y has 3"),
        (lambda: reliability.profile(X, 0.5), "taus: shape"),
        (lambda: bootstrap.interval(reliability.iqm, X[:1]), "task 0 has one run.*2 runs or more"),
        (lambda: bootstrap.interval(reliability.iqm), "samples: none given"),
        (lambda: bootstrap.interval(reliability.iqm, X, method="bc"), "method = 'bc': expected one of percentile, basic, bca"),
        (lambda: bootstrap.interval(reliability.iqm, X, level=95), "level = 95: expected a share"),
        (lambda: bootstrap.interval(reliability.iqm, X, count=1), "count = 1"),
        (lambda: bootstrap.interval(reliability.iqm, bootstrap.resampled(X, 3)), "resampled already"),
        (lambda: bootstrap.interval(reliability.iqm, reliability.from_tasks([[1, 2], [1, 2, 3]]), tasks=True), "tasks have 2 to 3 runs"),
        (lambda: bootstrap.interval(reliability.improvement, X, Y[:, :3], tasks=True), r"\[5, 3\] tasks"),
        (lambda: bootstrap.curve(X), r"shape \(7, 5\), expected \[runs, tasks, evaluations\]"),
        (lambda: bootstrap.task_ranks({"x": X, "y": Y[:, :2]}), "numbers of tasks {'x': 5, 'y': 2}"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
