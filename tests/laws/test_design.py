"""The next run against matrices inverted in full, profiles computed anew, and the spread of fits to planted worlds."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scaling_jax import laws
from scaling_jax.laws import design, forms, solve
from scaling_jax.laws.fitting import problem
from scaling_jax.laws.form import NotTestable
from scaling_jax.laws.points import Points
from scaling_jax.records import ConfigError

SIZES = np.repeat(np.geomspace(1e6, 1e8, 4), 4)
TOKENS = np.tile(np.geomspace(1e8, 1e10, 4), 4)
CHINCHILLA = dict(E=1.7, A=400.0, B=410.0, alpha=0.34, beta=0.28)
POWER = dict(E=1.7, A=400.0, alpha=0.34)


def line(x, *, a=(-np.inf, np.inf), b=(-np.inf, np.inf)):
    """L = a + b x"""
    return a + b * x


def fitted_line(seed=0, n=7):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 3, n)
    return laws.fit(line, {"x": x, "loss": 2 - 0.5 * x + 0.1 * rng.standard_normal(n)})


def grid(seed=0, spread=0.01, loss="log"):
    rng = np.random.default_rng(seed)
    y = forms.chinchilla.predict(CHINCHILLA, {"params": SIZES, "tokens": TOKENS})
    data = {"params": SIZES, "tokens": TOKENS, "loss": y * np.exp(spread * rng.standard_normal(len(y)))}
    return laws.fit(forms.chinchilla, data, loss=loss)


def by_hand(found, at, level=0.95, runs=1, quantity=(0.0, 1.0)):
    """se and width of a linear quantity of a line after `runs` runs at x = at, by inverting the whole matrix."""
    x = np.concatenate([found.points.columns["x"], np.full(runs, at)])
    rows = np.stack([np.ones_like(x), x], 1)
    s = np.sqrt(found.objective / (found.n - 2))
    se = s * np.sqrt(np.array(quantity) @ np.linalg.inv(rows.T @ rows) @ np.array(quantity))
    return se, 2 * stats.t.ppf(0.5 + level / 2, len(x) - 2) * se


def test_a_line_is_updated_as_the_whole_matrix_inverted_anew():
    found = fitted_line()
    out = design.next_run(found, {"x": [0.5, 1.5, 4.0]}, "b", cost=[1.0, 2.0, 8.0], target=0.08, level=0.9)
    for at, row in out.set_index("x").iterrows():
        se, width = by_hand(found, at, 0.9)
        assert row.se_after == pytest.approx(se, rel=1e-10) and row.width_after == pytest.approx(width, rel=1e-10)
        assert row.se_before == pytest.approx(by_hand(found, at, runs=0)[0], rel=1e-10)
        assert row.shrinkage == pytest.approx(1 - width / by_hand(found, at, 0.9, 0)[1], rel=1e-9)
        assert row.shrinkage_per_cost == pytest.approx(row.shrinkage / row.cost)
        needed = next((k for k in range(400) if by_hand(found, at, 0.9, k)[1] <= 0.08), np.inf)
        assert row.runs_to_target == needed and row.cost_to_target == pytest.approx(needed * row.cost)
    assert (np.diff(out.shrinkage_per_cost) <= 0).all()


def test_what_a_new_run_may_show_gives_this_width_in_the_root_mean_square():
    """Over the predictive distribution of the new run, y = law +- s sqrt(1 + j' C j), the mean of the new width^2 is that promised."""
    found, rng, at = fitted_line(3), np.random.default_rng(1), 4.0
    (row,) = design.next_run(found, {"x": [at]}, "b").itertuples()
    rows = np.stack([np.ones(found.n), found.points.columns["x"]], 1)
    j = np.array([1.0, at])
    spread = np.sqrt(found.objective / (found.n - 2) * (1 + j @ np.linalg.inv(rows.T @ rows) @ j))
    squares = []
    for e in spread * rng.standard_normal(3000):
        x, y = np.append(found.points.columns["x"], at), np.append(found.points.target, found.predict(x=at) + e)
        both = np.stack([np.ones_like(x), x], 1)
        _, (left,), *_ = np.linalg.lstsq(both, y, rcond=None)
        se2 = left / (len(x) - 2) * np.linalg.inv(both.T @ both)[1, 1]
        squares.append((2 * stats.t.ppf(0.975, len(x) - 2)) ** 2 * se2)
    assert np.mean(squares) == pytest.approx(row.width_after**2, abs=4 * np.std(squares) / np.sqrt(len(squares)))


@pytest.mark.parametrize("loss, at", [("lsq", 1e5), ("lsq", 1e10), ("huber", 1e12)])
def test_planted_worlds_refitted_with_the_run_scatter_as_promised(loss, at):
    """2,000 worlds of a planted power law: the spread of fitted exponents with and without one more run, against the promised shrinkage."""
    rng, spread = np.random.default_rng(5), 0.003
    n = 10 if loss == "lsq" else 60  # the spread of Huber's fits is what its formula says only for many points
    x = np.tile(np.geomspace(1e6, 1e9, 5), n // 5)
    noises = spread * rng.standard_normal((2000, n + 1))
    y = forms.power.predict(POWER, {"params": np.append(x, at)})
    worlds = y + noises if loss == "lsq" else y * np.exp(noises)
    fits = [laws.fit(forms.power, {"params": x, "loss": one[:-1]}, loss=loss) for one in worlds[:20]]
    rows = [design.next_run(found, {"params": [at]}, "alpha").iloc[0] for found in fits]
    promised = np.mean([row.se_after / row.se_before for row in rows])
    less, more = (exponents(fits[0], {"params": np.append(x, at)[:k]}, noises[:, :k]) for k in (n, n + 1))
    assert less[:20] == pytest.approx(
        [found["alpha"] for found in fits], rel=1e-5 if loss == "lsq" else 0.01
    )  # Huber: a flat stretch may be lowest
    assert np.std(more) / np.std(less) == pytest.approx(promised, rel=0.04)  # two correlated spreads: at most 1 / sqrt(2000) = 0.022 off
    assert promised < 0.97  # a run that informs, or the comparison could not fail


def exponents(found, inputs, noises):
    """alpha of the fits to POWER plus each row of noise, all at once and from the planted parameters on."""
    planted = forms.power.predict(POWER, inputs)
    points = Points(inputs, planted, np.ones(len(planted)), np.arange(len(planted)))
    task = dataclasses.replace(problem(found), points=points)

    def residual(x, which):
        r, slopes = task.residual(x)
        return r - noises[which], slopes

    start = np.repeat(task.encode(np.array([[POWER[name] for name in forms.power.params]])), len(noises), 0)
    return task.decode(solve.minimise(residual, start, *task.box, points.weights, task.delta).x)[:, 2]


@pytest.mark.parametrize("quantity", ["alpha", lambda p: p["beta"] / (p["alpha"] + p["beta"])], ids=["alpha", "allocation"])
def test_the_ranking_is_that_of_profiles_computed_anew(quantity):
    """A run at the fitted curve changes no residual: the profile's width shrinks by the promised factor, but for s^2's one more divisor."""
    found = grid()
    candidates = {"params": np.array([1e6, 1e9, 1e7]), "tokens": np.array([1e11, 1e9, 1e9])}
    out = design.next_run(found, candidates, quantity, cost=1.0)
    now = found.interval(quantity)
    factors = []
    for i in range(3):
        at = {name: values[i] for name, values in candidates.items()}
        data = {name: np.append(found.points.columns[name], value) for name, value in at.items()}
        there = laws.fit(forms.chinchilla, {**data, "loss": np.append(found.points.target, found.predict(at))}, loss="log").interval(
            quantity
        )
        freedom = found.n - 5
        factors.append((there.high - there.low) / (now.high - now.low) * np.sqrt((freedom + 1) / freedom))
    assert 1 - out.shrinkage.sort_index().to_numpy() == pytest.approx(np.array(factors), rel=0.02)
    assert out.index.tolist() == np.argsort(factors).tolist()
    assert out.se_before.iloc[0] == pytest.approx(now.se, rel=1e-5)


def test_costs_come_from_what_the_candidates_say():
    found = grid()
    frame = pd.DataFrame({"params": [1e7, 1e8], "tokens": [1e9, 1e9], "price": [3.0, 1.0]}, index=["cheap", "dear"])
    assert design.next_run(found, frame, "alpha").cost.to_dict() == {"cheap": 6e16, "dear": 6e17}
    assert design.next_run(found, frame, "alpha", cost=lambda c: c["price"]).cost.to_dict() == {"cheap": 3.0, "dear": 1.0}
    line_ = fitted_line()
    assert design.next_run(line_, {"x": [1.0, 2.0]}, "a").cost.tolist() == [1.0, 1.0]
    assert design.next_run(line_, {"x": [1.0], "compute": [7.0]}, "a").cost.tolist() == [7.0]


def test_candidates_outside_the_fitted_range_are_noted():
    notes = design.next_run(grid(), {"params": [1e7, 1e9], "tokens": [1e9, 2e7]}, "alpha").note.sort_index().tolist()
    assert notes[0] == ""
    assert "params = 1e+09 lies above the fitted 1e+06 to 1e+08, 10 times" in notes[1] and "tokens = 2e+07 lies below" in notes[1]


def test_a_target_that_no_number_of_runs_reaches_is_infinite():
    """However many runs there are at one x: a line's slope stays as uncertain as the other points leave it, of which x = 40 is farther."""
    found = fitted_line()
    now = by_hand(found, 0.0, runs=0)[1]
    out = design.next_run(found, {"x": [0.0, 40.0]}, "b", target=now / 20).set_index("x")
    assert np.isinf(out.runs_to_target[0.0]) and np.isfinite(out.runs_to_target[40.0])
    assert (design.next_run(found, {"x": [0.0]}, "b", target=2 * now).runs_to_target == 0).all()


@settings(max_examples=30)
@given(at=st.floats(-5, 8), weight=st.floats(0.1, 10), scale=st.floats(0.01, 100), seed=st.integers(0, 50))
def test_laws_of_the_update(at, weight, scale, seed):
    found = fitted_line(seed)
    one = design.next_run(found, {"x": [at]}, "b", cost=scale).iloc[0]
    assert 0 < one.shrinkage < 1 and one.se_after <= one.se_before
    # no unit of the quantity matters, and the cost only divides
    other = design.next_run(found, {"x": [at]}, lambda p: scale * p["b"] + 1.0).iloc[0]
    assert other.shrinkage == pytest.approx(one.shrinkage, rel=1e-6)
    assert other.shrinkage_per_cost == pytest.approx(one.shrinkage_per_cost * scale, rel=1e-6)
    # a run of weight w informs like w runs
    heavy = design.next_run(found, {"x": [at]}, "b", weights=weight).iloc[0]
    assert (heavy.se_after <= one.se_after) == (weight >= 1) or abs(weight - 1) < 1e-9
    assert design.next_run(found, {"x": [at]}, "b", weights=2.0).iloc[0].se_after == pytest.approx(by_hand(found, at, runs=2)[0], rel=1e-9)


def test_a_parameter_at_its_bound_stays_there():
    rng, x = np.random.default_rng(0), np.geomspace(1e6, 1e9, 8)
    found = laws.fit(forms.power, {"params": x, "loss": 400 * x**-0.34 * np.exp(0.01 * rng.standard_normal(8)) - 0.01})
    assert found["E"] == 0
    at = design.next_run(found, {"params": [1e9]}, "alpha").iloc[0]
    # as in its interval, the bound is met by choice of the fit and costs a degree of freedom
    given_ = laws.fit(forms.power, found.points.columns | {"loss": found.points.target}, fixed={"E": 0.0})
    without = design.next_run(given_, {"params": [1e9]}, "alpha").iloc[0]
    assert at.se_before == pytest.approx(without.se_before * np.sqrt(6 / 5), rel=1e-4)
    assert at.se_before == pytest.approx(found.interval("alpha").se, rel=1e-4)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(candidates={"params": [1e9]}), "no column 'tokens'"),
        (dict(candidates={"params": [1e9, -1.0], "tokens": [1e9, 1e9]}), "params = -1.0 in row 1"),
        (dict(candidates={"params": [1e9, 1e8], "tokens": [1e9]}), "one length"),
        (dict(cost=0.0), "cost = 0.0"),
        (dict(cost=[1.0, 2.0]), "one per candidate"),
        (dict(weights=-1.0), "weights = -1.0"),
        (dict(target=0.0), "target = 0.0"),
    ],
)
def test_mistakes_are_named(change, message):
    asked = dict(candidates={"params": [1e9], "tokens": [1e9]}, quantity="alpha") | change
    with pytest.raises(ConfigError, match=message):
        design.next_run(grid(), **asked)


def test_what_cannot_be_ranked_says_why():
    found, candidates = grid(), {"params": [1e9], "tokens": [1e9]}
    with pytest.raises(NotTestable, match="does not depend on the fit"):
        design.next_run(found, candidates, lambda p: p["E"] * 0 + 1)
    with pytest.raises(ConfigError, match="no points"):
        design.next_run(dataclasses.replace(found, points=None), candidates, "alpha")
    with pytest.raises(NotTestable, match="other values fit as well"):
        design.next_run(dataclasses.replace(found, identified=False, warnings=("other values fit as well",)), candidates, "alpha")
    with pytest.raises(ValueError, match="has the parameters"):
        design.next_run(found, candidates, "gamma")
