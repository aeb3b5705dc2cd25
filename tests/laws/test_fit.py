"""Fits against the paper's published numbers, SciPy's least squares and planted laws; every refusal with its message."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from scaling_jax.laws import derived, fitting, forms, record
from scaling_jax.laws.form import NotTestable

PUBLISHED = Path(__file__).resolve().parents[2] / "experiments" / "published"
LAWS = {"power": forms.power, "data_power": forms.data_power, "ensemble": forms.ensemble}
RANGES = {"power": np.geomspace(7e3, 8e4, 8), "data_power": np.geomspace(2e8, 2e9, 8), "ensemble": np.arange(1.0, 9.0)}

logarithm = forms.Form(
    name="logarithm",
    equation="L(x) = a - b ln x",
    inputs=("x",),
    params=("a", "b"),
    function=lambda p, c: p["a"] - p["b"] * np.log(c["x"]),
    bounds={"a": (-np.inf, np.inf), "b": (-np.inf, np.inf)},
)
plane = forms.Form(
    name="plane",
    equation="L(x, z) = a + b ln x + c ln z",
    inputs=("x", "z"),
    params=("a", "b", "c"),
    function=lambda p, c: p["a"] + p["b"] * np.log(c["x"]) + p["c"] * np.log(c["z"]),
    bounds={"a": (0.0, np.inf), "b": (-5.0, 5.0), "c": (-5.0, 5.0)},
)


def rows(name):
    with open(PUBLISHED / name, encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def planted(form, offset, gap, exponent, x=None):
    """Noise-free data of a law that lies `gap` above its offset at the first x."""
    x = RANGES[form.name] if x is None else x
    return {form.inputs[0]: x, "loss": offset + gap * (x / x[0]) ** -exponent}


def noisy(form, seed, spread=0.01):
    rng = np.random.default_rng(seed)
    data = planted(form, 2.5, 1.2, 0.9)
    return {**data, "loss": data["loss"] + spread * rng.standard_normal(len(data["loss"]))}


# --- published numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens, limit", [(209715200, 3.169), (419430400, 2.980), (838860800, 2.789), (1677721600, 2.657)])
def test_the_published_limits_in_size(tokens, limit):
    frame = pd.DataFrame(rows("infinite_compute_asymptotes.csv")).astype(float)
    found = fitting.fit(forms.power, frame[frame.tokens == tokens])
    assert found["E"] == pytest.approx(limit, abs=1e-3)
    assert (found.n, found.distinct, found.x_range) == (4, 4, (150e6, 1.4e9))


def test_the_standard_recipe_turns_up_and_the_joint_limit_lies_far_below():
    """The paper's headline at 209M tokens: 1.4B parameters are worse than 600M, and ensembles of them reach 3.17."""
    loss = {int(r["params"]): float(r["loss"]) for r in rows("infinite_compute_standard.csv") if int(r["tokens"]) == 209715200}
    assert min(loss, key=loss.get) == 600000000 and loss[1400000000] == pytest.approx(loss[600000000] + 0.0146, abs=1e-4)
    joint = fitting.fit(forms.power, pd.DataFrame(rows("infinite_compute_asymptotes.csv")).astype(float), where={"tokens": 209715200})
    assert min(loss.values()) - joint["E"] == pytest.approx(0.581, abs=2e-3)


def test_the_data_law_of_the_published_limits():
    """L(D) = 1.80 + 0.96 / D^0.228, D in billions, through the four joint limits: the floor extrapolates far."""
    frame = pd.DataFrame(rows("infinite_compute_asymptotes.csv")).astype(float)
    limits = {tokens / 1e9: fitting.fit(forms.power, part)["E"] for tokens, part in frame.groupby("tokens")}
    law = fitting.fit(forms.data_power, pd.Series(limits))
    np.testing.assert_allclose([law["E"], law["B"], law["beta"]], [1.80, 0.96, 0.228], rtol=0.01)
    assert len(law.warnings) == 1 and law.warnings[0].startswith("E extrapolates: 0.85")


def test_the_published_points_are_complete():
    keys = [(r["recipe"], r["size"], int(r["tokens"])) for r in rows("infinite_compute_tuned.csv")]
    budgets = [209715200 * 2**i for i in range(4)]
    want = {(r, s, d) for r in ("standard", "regularized") for s in ("150M", "300M", "600M", "1.4B") for d in budgets}
    assert set(keys) == want and len(keys) == len(want)
    assert {r["decay"] for r in rows("infinite_compute_tuned.csv") if r["recipe"] == "standard"} == {"0.1"}


# --- against SciPy -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", LAWS)
def test_equals_scipy(name, seed, weighted):
    form, data = LAWS[name], noisy(LAWS[name], seed)
    x, y = data[form.inputs[0]], data["loss"]
    weights = np.random.default_rng(seed).uniform(0.2, 3.0, len(x)) if weighted else None
    found = fitting.fit(form, data, weights=weights)
    offset, scale, exponent = form.params
    low, high = ([form.bounds[p][i] for p in form.params] for i in (0, 1))
    (e, a, alpha), _ = curve_fit(
        lambda x, e, a, alpha: e + a * x**-alpha,
        x / x[0],
        y,
        p0=(2.0, 1.0, 1.0),
        sigma=None if weights is None else weights**-0.5,
        bounds=(low, high),
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
    )
    np.testing.assert_allclose([found[offset], found[exponent]], [e, alpha], rtol=1e-5)
    assert found[scale] == pytest.approx(a * x[0] ** alpha, rel=1e-4)  # the exponent's error times ln x, some 20
    residual = y - (e + a * (x / x[0]) ** -alpha)
    objective = ((1 if weights is None else weights) * residual**2).sum()
    assert found.objective <= objective * (1 + 1e-9)
    np.testing.assert_allclose(found.predict(data), y - residual, rtol=1e-6)


@pytest.mark.parametrize("loss", ["log", "huber"])
def test_r2_is_one_thing_whatever_the_loss(loss):
    x = np.geomspace(1e6, 1e9, 20)
    y = (1.7 + 400 * x**-0.34) * np.exp(0.01 * np.random.default_rng(0).standard_normal(20))
    found = fitting.fit(forms.power, {"params": x, "loss": y}, loss=loss)
    residual = np.log(y) - np.log(found.predict(params=x))
    assert found.r2 == pytest.approx(1 - (residual**2).sum() / ((np.log(y) - np.log(y).mean()) ** 2).sum(), rel=1e-12)


def test_r2_and_the_rest():
    data = noisy(forms.power, 0)
    found = fitting.fit(forms.power, pd.DataFrame(data))
    residual = data["loss"] - found.predict(data)
    assert found.objective == pytest.approx((residual**2).sum(), rel=1e-12)
    assert found.r2 == pytest.approx(1 - residual.var() / data["loss"].var(), rel=1e-4)
    assert found.n == found.distinct == 8 and found.warnings == ()


def test_a_series_and_repeats_and_weights_agree():
    """A point of weight two is the point twice; a series indexed by the input is its frame."""
    data = noisy(forms.power, 1)
    series = pd.Series(data["loss"], index=data["params"])
    weights = np.array([1.0, 2, 1, 1, 3, 1, 1, 1])
    many = {name: np.repeat(values, weights.astype(int)) for name, values in data.items()}
    assert fitting.fit(forms.power, series) == fitting.fit(forms.power, data)
    weighted, repeated = fitting.fit(forms.power, data, weights=weights), fitting.fit(forms.power, many)
    assert (repeated.n, repeated.distinct) == (11, 8)
    np.testing.assert_allclose(list(weighted.params.values()), list(repeated.params.values()), rtol=1e-6)


def test_another_column_can_be_fitted():
    data = noisy(forms.power, 1)
    found = fitting.fit(forms.power, {"params": data["params"], "excess": data["loss"]}, y="excess")
    assert found.params == fitting.fit(forms.power, data).params


# --- planted laws --------------------------------------------------------------------------------------------

offsets, gaps, exponents = st.floats(0.5, 5.0), st.floats(0.1, 5.0), st.floats(0.3, 2.0)


@settings(max_examples=60)
@given(st.sampled_from(sorted(LAWS)), offsets, gaps, exponents)
def test_planted_parameters_are_found(name, offset, gap, exponent):
    form = LAWS[name]
    x = RANGES[name]
    found = fitting.fit(form, planted(form, offset, gap, exponent))
    names = form.params
    assert found[names[0]] == pytest.approx(offset, rel=1e-5, abs=1e-5 * gap)
    assert found[names[2]] == pytest.approx(exponent, rel=1e-5)
    assert found[names[1]] * x[0] ** -found[names[2]] == pytest.approx(gap, rel=1e-5)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.floats(-6, 6), st.floats(-3, 3))
def test_units_do_not_matter(seed, log_x, log_y):
    """Inputs in other units change A alone, losses in other units E and A."""
    data, cx, cy = noisy(forms.power, seed), 10**log_x, 10**log_y
    base = fitting.fit(forms.power, data)
    found = fitting.fit(forms.power, {"params": cx * data["params"], "loss": cy * data["loss"]})
    assert found["alpha"] == pytest.approx(base["alpha"], rel=1e-5)
    assert found["E"] == pytest.approx(cy * base["E"], rel=1e-5)
    assert found["A"] == pytest.approx(cy * base["A"] * cx ** found["alpha"], rel=1e-3)
    assert found.r2 == pytest.approx(base.r2, rel=1e-9)


# --- refusals and warnings -----------------------------------------------------------------------------------


def changed(column, row, value):
    data = {name: np.array(values) for name, values in noisy(forms.power, 0).items()}
    data[column][row] = value
    return data


@pytest.mark.parametrize("column", ["params", "loss"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
def test_values_no_law_has(column, value):
    with pytest.raises(ValueError, match=rf"{column} = {value} in row 3: power takes finite numbers above zero"):
        fitting.fit(forms.power, changed(column, 3, value))


def test_a_run_that_diverged_is_no_mistake():
    for value in (np.nan, np.inf):
        with pytest.raises(NotTestable, match=f"loss = {value} in row 3"):
            fitting.fit(forms.power, changed("loss", 3, value))
    for column, value in (("loss", -1.0), ("params", np.nan)):
        with pytest.raises(ValueError) as error:
            fitting.fit(forms.power, changed(column, 3, value))
        assert not isinstance(error.value, NotTestable)


@pytest.mark.parametrize("x", [[1, 2, 3], [1, 2, 3, 3, 2], [5, 5, 5, 5, 5]])
def test_no_degree_of_freedom(x):
    message = rf"no degree of freedom: power has 3 parameters.* and there are {len(set(x))} distinct params; needs 4"
    with pytest.raises(NotTestable, match=message):
        fitting.fit(forms.power, {"params": x, "loss": np.arange(len(x)) + 1.0})


def test_points_without_weight_give_no_degree_of_freedom():
    with pytest.raises(NotTestable, match="there are 3 distinct params; needs 4"):
        fitting.fit(forms.power, noisy(forms.power, 0), weights=[1, 1, 1, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("weights", [[1.0] * 7, [0.0] * 8, [-1.0] + [1.0] * 7, [np.nan] + [1.0] * 7, [np.inf] + [1.0] * 7, 1.0])
def test_bad_weights(weights):
    with pytest.raises(ValueError, match="weights: expected 8 finite numbers, none negative and not all zero"):
        fitting.fit(forms.power, noisy(forms.power, 0), weights=weights)


@pytest.mark.parametrize("missing", ["params", "loss"])
def test_a_missing_column(missing):
    frame = pd.DataFrame({**noisy(forms.power, 0), "note": 1.0}).drop(columns=missing)
    with pytest.raises(ValueError, match=f"power needs a column '{missing}'; the data have .*note"):
        fitting.fit(forms.power, frame)


@pytest.mark.parametrize(
    "loss, warning",
    [
        (lambda x: 3.0 / x - 0.05, "E is at its bound 0"),
        (lambda x: 1.0 + (x <= 1), "alpha is at its bound 5, so E is the level of the points beyond the first"),
        (lambda x: 100 * x**-0.004, "alpha is at its bound 0.01"),
        (lambda x: 2 + 0.1 * x, "A is at its bound 0"),
    ],
)
def test_a_bound_is_told(loss, warning):
    x = np.arange(1.0, 9.0)
    assert warning in fitting.fit(forms.power, {"params": x, "loss": loss(x)}).warnings


def test_a_rising_loss_gives_the_constant():
    x, y = np.arange(1.0, 9.0), np.arange(1.0, 9.0) ** 2
    found = fitting.fit(forms.power, {"params": x, "loss": y})
    np.testing.assert_allclose(found.predict({"params": x}), y.mean(), rtol=1e-12)


# --- what is made of a fit -----------------------------------------------------------------------------------


@settings(max_examples=40)
@given(offsets, gaps, exponents, st.floats(-0.9, 1.9))
def test_data_efficiency_inverts_the_law(offset, gap, exponent, decades):
    law = fitting.fit(forms.data_power, planted(forms.data_power, offset, gap, exponent))
    tokens = 2e8 * 10**decades
    loss = float(law.predict({"tokens": np.array([tokens])})[0])
    assert derived.data_efficiency(law, loss, most=100) == pytest.approx(tokens, rel=1e-6)


def test_data_efficiency_refuses():
    law = fitting.fit(forms.data_power, planted(forms.data_power, 2.5, 1.0, 1.0))
    for loss in (2.4, law["E"]):
        with pytest.raises(NotTestable, match=r"floor is 2\.5, it never reaches .* needs more unique-data budgets"):
            derived.data_efficiency(law, loss)
    loss_at = lambda tokens: float(law.predict({"tokens": np.array([tokens])})[0])
    assert derived.data_efficiency(law, loss_at(31e9)) == pytest.approx(31e9)
    for tokens in (33e9, 2e8 / 17):
        with pytest.raises(NotTestable, match=r"tokens, more than 16 times outside its data \(2e\+08 to 2e\+09\)"):
            derived.data_efficiency(law, loss_at(tokens))


def test_data_efficiency_of_an_exponent_at_its_bound():
    """A law this flat reaches the loss after more tokens than a float can hold."""
    law = dataclasses.replace(
        fitting.fit(forms.data_power, planted(forms.data_power, 2.5, 1.0, 1.0)), params={"E": 2.0, "B": 5.0, "beta": 0.01}
    )
    with pytest.raises(NotTestable, match="would need inf tokens"):
        derived.data_efficiency(law, 2.001)
    flat = dataclasses.replace(law, params={"E": 2.0, "B": 0.0, "beta": 0.01})
    with pytest.raises(NotTestable, match="would need 0 tokens"):
        derived.data_efficiency(flat, 2.001)


@settings(max_examples=40)
@given(st.floats(-4.5, 0.5), st.floats(0.01, 10.0), st.integers(1, 3))
def test_a_parabola_has_its_minimum(log_minimum, bend, reach):
    x = np.geomspace(1e-3, 10, 11)
    means = pd.Series(3 + bend * (np.log(x) - np.log(10) * log_minimum) ** 2, index=x)
    if means.to_numpy().argmin() in (0, 10):
        with pytest.raises(NotTestable, match="at the edge of the grid"):
            derived.parabola_minimum(means, reach)
    else:
        assert derived.parabola_minimum(means, reach) == pytest.approx(10**log_minimum, rel=1e-6)


def test_a_parabola_looks_no_further_than_its_reach():
    x = np.geomspace(1, 64, 7)
    near = (np.log(x) - np.log(10)) ** 2
    far = near + np.array([9.0, 0, 0, 0, 0, 0, 9.0])
    assert derived.parabola_minimum(pd.Series(far, index=x)) == pytest.approx(10)


def test_what_has_no_minimum():
    with pytest.raises(NotTestable, match="the lowest mean is at the edge of the grid, 0.1"):
        derived.parabola_minimum(pd.Series([1.0, 2.0, 3.0], index=[0.1, 1.0, 10.0]))
    with pytest.raises(NotTestable, match="do not bend upwards around the lowest"):
        derived.parabola_minimum(pd.Series([1.0, 5.0, 0.99, 5.0, 1.0], index=[1.0, 2, 4, 8, 16]))


def test_json_has_plain_types():
    found = fitting.fit(forms.power, noisy(forms.power, 0))
    entry = record.to_json(found, "tuned", {"E": (np.float64(2.1), np.float32(2.5)), "alpha": None})
    assert json.loads(json.dumps(entry, allow_nan=False)) == entry
    assert entry["law"] == "power" and entry["group"] == "tuned" and entry["n"] == 8
    assert entry["equation"] == "L(params) = E + A / params^alpha"
    assert entry["params"] == dict(found.params) and entry["ci95"] == {"E": [2.1, 2.5], "alpha": None}
    leaves = [*entry["params"].values(), entry["objective"], entry["r2"], *entry["x_range"], *entry["ci95"]["E"]]
    assert {type(leaf) for leaf in leaves} == {float}
