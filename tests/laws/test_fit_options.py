"""Options of a fit, forms of the user's own, and the double limit."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from scaling_jax.laws import derived, fitting, forms, record
from scaling_jax.laws.form import NotTestable
from tests.laws.test_fit import LAWS, logarithm, noisy, plane, planted, rows

# --- forms of the user's own ---------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_a_form_without_exponent_goes_through_scipy(weighted):
    rng = np.random.default_rng(0)
    x = np.geomspace(10, 1e4, 12)
    y = 9 - 0.5 * np.log(x) + 0.05 * rng.standard_normal(12)
    weights = rng.uniform(0.2, 3, 12) if weighted else np.ones(12)
    found = fitting.fit(logarithm, {"x": x, "loss": y}, weights=weights)
    slope, intercept = np.polyfit(np.log(x), y, 1, w=np.sqrt(weights))
    np.testing.assert_allclose([found["a"], found["b"]], [intercept, -slope], rtol=1e-6)


def test_two_inputs():
    x, z = (g.ravel() for g in np.meshgrid([1.0, 10, 100], [2.0, 4, 8]))
    y = 4 - 0.3 * np.log(x) + 0.2 * np.log(z)
    found = fitting.fit(plane, {"x": x, "z": z, "loss": y})
    np.testing.assert_allclose([found["a"], found["b"], found["c"]], [4, -0.3, 0.2], rtol=1e-6)
    assert (found.distinct, found.x_range) == (9, (1.0, 100.0))
    with pytest.raises(NotTestable, match="3 distinct x, z; needs 4"):
        fitting.fit(plane, {"x": [1, 1, 2, 2], "z": [1, 1, 1, 2], "loss": [1, 2, 3, 4]})


def test_a_form_that_is_nowhere_finite():
    broken = forms.Form("broken", "nan", ("x",), ("a",), lambda p, c: np.nan * c["x"], {"a": (0.0, 1.0)})
    with pytest.raises(NotTestable, match="broken .* no start.*; give narrower bounds"):
        fitting.fit(broken, {"x": [1, 2], "loss": [1, 2]})


@pytest.mark.parametrize("name", LAWS)
def test_both_searches_find_the_same(name):
    """The same law without its closed form, through SciPy."""
    form, data = LAWS[name], noisy(LAWS[name], 2)
    x = data[form.inputs[0]] / data[form.inputs[0]][0]
    data = {**data, form.inputs[0]: x}
    slow = forms.Form(form.name, form.equation, form.inputs, form.params, form.function, form.bounds)
    fast, slow = fitting.fit(form, data), fitting.fit(slow, data)
    np.testing.assert_allclose(list(fast.params.values()), list(slow.params.values()), rtol=1e-5)


# --- options of a fit ----------------------------------------------------------------------------------------

chinchilla = forms.Form(
    name="chinchilla",
    equation="L(N, D) = E + A / N^alpha + B / D^beta",
    inputs=("params", "tokens"),
    params=("E", "A", "B", "alpha", "beta"),
    function=lambda p, c: p["E"] + p["A"] / c["params"] ** p["alpha"] + p["B"] / c["tokens"] ** p["beta"],
    bounds={"E": (0.0, np.inf), "A": (0.0, np.inf), "B": (0.0, np.inf), "alpha": forms.EXPONENTS, "beta": forms.EXPONENTS},
    linear=("E", "A", "B"),
)


@pytest.mark.parametrize("tokens", [209715200, 419430400, 838860800, 1677721600])
def test_the_published_limits_are_those_of_curve_fit(tokens):
    """All three parameters to 1e-6, in the paper's unit of size, billions."""
    points = [(float(r["params"]) / 1e9, float(r["loss"])) for r in rows("infinite_compute_asymptotes.csv") if int(r["tokens"]) == tokens]
    x, y = np.array(points).T
    tight = dict(xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=10000)
    want, _ = curve_fit(lambda x, e, a, alpha: e + a * x**-alpha, x, y, p0=(y.min(), 0.05, 1.0), bounds=(0, 5), **tight)
    np.testing.assert_allclose(list(fitting.fit(forms.power, {"params": x, "loss": y}).params.values()), want, rtol=1e-6)


@settings(max_examples=60)
@given(st.floats(0.5, 4.0), st.floats(0.05, 900.0), st.floats(0.05, 3.0), st.floats(-3, 9))
def test_flat_and_steep_laws_are_found_to_the_last_digits(offset, gap, exponent, log_x):
    """The slope of the objective has a zero that is known far better than the place of its minimum."""
    x = 10**log_x * np.geomspace(1, 60, 9)
    found = fitting.fit(forms.power, planted(forms.power, offset, gap, exponent, x))
    assert found["alpha"] == pytest.approx(exponent, rel=1e-7)
    assert found["E"] == pytest.approx(offset, abs=1e-6 * gap / exponent)


def test_where_chooses_rows():
    data = noisy(forms.power, 0)
    label = np.array(["x", "y"])
    both = {name: np.concatenate([values, 2 * values]) for name, values in data.items()} | {"recipe": np.repeat(label, 8)}
    assert fitting.fit(forms.power, both, where={"recipe": "x"}) == fitting.fit(forms.power, data)
    assert fitting.fit(forms.power, pd.DataFrame(both), where={"recipe": ["x", "z"]}) == fitting.fit(forms.power, data)
    with pytest.raises(NotTestable, match="there are 0 distinct params; needs 4"):
        fitting.fit(forms.power, both, where={"recipe": "none"})
    with pytest.raises(ValueError, match="power needs a column 'recip'"):
        fitting.fit(forms.power, both, where={"recip": "x"})
    both["loss"][11] = np.nan
    assert fitting.fit(forms.power, both, where={"recipe": "x"}).n == 8
    with pytest.raises(ValueError, match="loss = nan in row 11: .*; drop the row"):
        fitting.fit(forms.power, both, where={"recipe": "y"})


@pytest.mark.parametrize("fixed", [("E",), ("A",), ("alpha",), ("E", "A"), ("E", "alpha"), ("A", "alpha"), ("E", "A", "alpha")])
def test_fixed_parameters_stay(fixed):
    """Against SciPy over the others, away from their least-squares values."""
    x = np.geomspace(1, 50, 8)
    y = 2 + 1.5 * x**-0.8 + 0.01 * np.random.default_rng(1).standard_normal(8)
    values = {name: value for name, value in {"E": 1.9, "A": 1.45, "alpha": 0.7}.items() if name in fixed}
    found = fitting.fit(forms.power, {"params": x, "loss": y}, fixed=values)
    assert {name: found[name] for name in fixed} == values and list(found.params) == ["E", "A", "alpha"]
    free = [name for name in found.params if name not in fixed]
    law = lambda x, *v: forms.power.predict({**values, **dict(zip(free, v, strict=True))}, {"params": x})
    if free:
        want, _ = curve_fit(law, x, y, p0=[1.0] * len(free), bounds=(0, 10), xtol=1e-15, ftol=1e-15, gtol=1e-15)
        np.testing.assert_allclose([found[name] for name in free], want, rtol=1e-6)
    assert found.objective == pytest.approx(((y - law(x, *[found[name] for name in free])) ** 2).sum())


def test_fixed_parameters_give_back_their_degree_of_freedom():
    data = {"params": [1, 2, 4], "loss": [3.0, 2.0, 1.5]}
    assert fitting.fit(forms.power, data, fixed={"alpha": 1}).params == pytest.approx({"E": 1.0, "A": 2.0, "alpha": 1.0})
    with pytest.raises(NotTestable, match="power has 2 free parameters and there are 2 distinct params; needs 3"):
        fitting.fit(forms.power, {"params": [1, 2], "loss": [3.0, 2.0]}, fixed={"alpha": 1})
    with pytest.raises(ValueError, match="fixed: power has no parameter 'beta'; it has E, A, alpha"):
        fitting.fit(forms.power, data, fixed={"beta": 1})
    with pytest.raises(ValueError, match="fixed: alpha = 7 is outside the bounds of power, 0.01 to 5"):
        fitting.fit(forms.power, data, fixed={"alpha": 7})


def test_residuals_of_logarithms():
    data = noisy(forms.power, 3, 0.1)
    x, y = data["params"] / 7e3, data["loss"]
    found = fitting.fit(forms.power, {"params": x, "loss": y}, loss="log")
    want, _ = curve_fit(lambda x, e, a, alpha: np.log(e + a * x**-alpha), x, np.log(y), p0=(2, 1, 1), xtol=1e-15, ftol=1e-15, gtol=1e-15)
    np.testing.assert_allclose(list(found.params.values()), want, rtol=1e-5)
    assert found.objective == pytest.approx(((np.log(y) - np.log(found.predict(params=x))) ** 2).sum(), rel=1e-9)
    assert found.loss_kind == "least squares of logarithms" and 0 < found.r2 < 1


def test_linear_parameters_are_solved_for():
    """Five parameters over sizes and tokens in the billions, from no starting value (the coefficients of arXiv:2404.10102)."""
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(7, 10, 40), 10 ** rng.uniform(9, 12, 40)
    truth = {"E": 1.817, "A": 482.01, "B": 2085.43, "alpha": 0.348, "beta": 0.366}
    data = {"params": n, "tokens": d, "loss": chinchilla.predict(truth, {"params": n, "tokens": d})}
    for log in (False, True):
        assert fitting.fit(chinchilla, data, loss="log" if log else "lsq").params == pytest.approx(truth, rel=1e-5)
    assert fitting.fit(chinchilla, data, fixed={"E": 1.817}).params == pytest.approx(truth, rel=1e-5)


def test_aic_prefers_the_form_that_made_the_data():
    x = np.geomspace(1, 1000, 20)
    y = 2 + 1.5 * x**-0.8 + 0.01 * np.random.default_rng(0).standard_normal(20)
    curve, line = fitting.fit(forms.power, {"params": x, "loss": y}), fitting.fit(logarithm, {"x": x, "loss": y})
    assert curve.aic < line.aic - 10
    assert curve.aic == pytest.approx(20 * np.log(curve.objective / 20) + 2 * 4) and line.aic == pytest.approx(
        20 * np.log(line.objective / 20) + 2 * 3
    )


def test_a_floor_far_below_the_points_is_told():
    x = np.geomspace(1, 10, 6)
    far = fitting.fit(forms.power, {"params": x, "loss": 1 + x**-0.2})
    assert far.warnings == ("E extrapolates: 0.631 below the lowest point, the points span 0.369",)
    assert fitting.fit(forms.power, {"params": x, "loss": 1 + x**-0.5}).warnings == ()
    assert fitting.fit(forms.power, {"params": x, "loss": 1 + x**-0.2}, fixed={"E": 1.0}).warnings == ()


def test_a_form_may_take_zeros_and_signs():
    line = forms.Form(
        "line", "y = a + b x", ("x",), ("a", "b"), lambda p, c: p["a"] + p["b"] * c["x"], {"a": (-9, 9), "b": (-9, 9)}, positive=False
    )
    data = {"x": [-1, 0, 1, 2], "loss": [-3.0, -1.0, 1.0, 3.0]}
    assert fitting.fit(line, data).params == pytest.approx({"a": -1.0, "b": 2.0})
    with pytest.raises(ValueError, match="x = nan in row 1: line takes finite numbers; drop the row"):
        fitting.fit(line, {"x": [-1, np.nan, 1, 2], "loss": data["loss"]})
    with pytest.raises(ValueError, match="loss = -3.0 in row 0: line takes finite numbers above zero"):
        fitting.fit(line, data, loss="log")


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(inputs=()), "needs one of each at least"),
        (dict(bounds={"a": (0, 1)}), r"bounds are of \['a'\], expected one \(lowest, highest\) each for \('a', 'b'\)"),
        (dict(bounds={"a": (0, 1), "b": (1, 1)}), r"bounds of b = \(1, 1\): the first must lie below the second"),
        (dict(linear=("c",)), r"'c' is not one of its params \('a', 'b'\)"),
    ],
)
def test_a_wrong_form(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(logarithm, **change)


def test_columns_of_unequal_length():
    with pytest.raises(ValueError, match=r"power: expected columns of one length, got .*'params': \(3,\)"):
        fitting.fit(forms.power, {"params": [1, 2, 3], "loss": [1.0, 2, 3, 4]})
    with pytest.raises(ValueError, match="plane has the inputs x, z: a Series has one, give a frame"):
        fitting.fit(plane, pd.Series([1.0, 2.0]))


# --- the double limit ----------------------------------------------------------------------------------------


def test_the_joint_limit_is_that_of_the_limits():
    """L = 2 + 3 / N^0.5 + (1 / N^0.2) / K: the limit in K leaves 2 + 3 / N^0.5; teams of one K are averaged."""
    n, k = (g.ravel() for g in np.meshgrid([10.0, 20, 40, 80], [1.0, 1, 2, 3, 4, 5], indexing="ij"))
    wobble = np.tile([0.1, -0.1, 0, 0, 0, 0], 4)
    data = {"params": n, "members": k, "loss": 2 + 3 * n**-0.5 + n**-0.2 / k + wobble}
    limits, law = derived.joint_limit(data)
    assert list(limits) == [10, 20, 40, 80] and law.form is forms.power
    for size, found in limits.items():
        assert found.params == pytest.approx({"C": 2 + 3 * size**-0.5, "A": size**-0.2, "b": 1.0}, rel=1e-6)
    assert law.params == pytest.approx({"E": 2.0, "A": 3.0, "alpha": 0.5}, rel=1e-5)
    few = k < 4
    few[n != 40] = True
    with pytest.raises(
        NotTestable, match="at params = 40: no degree of freedom: ensemble has 3 parameters and there are 3 distinct members"
    ):
        derived.joint_limit({name: values[few] for name, values in data.items()})
    with pytest.raises(NotTestable, match="power has 3 parameters and there are 3 distinct params"):
        derived.joint_limit({name: values[n > 10] for name, values in data.items()})


def test_data_efficiency_counts_from_the_tokens_used():
    law = fitting.fit(forms.data_power, planted(forms.data_power, 2.5, 1.0, 1.0))
    loss = float(law.predict(tokens=1e9))
    assert derived.data_efficiency(law, loss, tokens=2e8) == pytest.approx(5.0)
    assert law.predict({"tokens": 1e9}) == law.predict(tokens=1e9)


def test_json_keeps_samples_and_seed():
    found = fitting.fit(forms.power, noisy(forms.power, 0))
    entry = record.to_json(found, samples={"E": np.array([2.4, 2.6])}, seed=3)
    assert (entry["schema"], entry["seed"], entry["samples"], entry["loss_kind"]) == (record.SCHEMA, 3, {"E": [2.4, 2.6]}, "least squares")
    with pytest.raises(ValueError, match="samples: 1001 draws of E, at most 1000; thin them"):
        record.to_json(found, samples={"E": np.zeros(1001)})
    with pytest.raises(ValueError, match="ci95: power has no parameter 'beta'; it has E, A, alpha"):
        record.to_json(found, ci95={"beta": None})


# --- what a result says of itself ----------------------------------------------------------------------------


def scattered(n, seed, factor=1.0):
    rng = np.random.default_rng(seed)
    size, tokens = 10 ** rng.uniform(7.6, 10.2, n), 10 ** rng.uniform(9, 12, n)
    truth = {"E": 1.82, "A": 482.0, "B": 2085.0, "alpha": 0.348, "beta": 0.366}
    y = forms.chinchilla.predict(truth, {"params": size, "tokens": tokens}) * np.exp(0.01 * rng.standard_normal(n))
    y[3] *= factor
    return {"params": size, "tokens": tokens, "loss": y}


@pytest.mark.parametrize("loss", ["huber", "log", "lsq"])
def test_an_outlier_is_named_and_noise_is_not(loss):
    """At sixteen points for five parameters a tenfold loss is named in nearly every world, and no clean point in most."""
    told = lambda n, seed, factor: laws_fit(scattered(n, seed, factor), loss)
    named = sum(any("row 3 lies" in w for w in told(16, seed, 10.0).warnings) for seed in range(25))
    alarms = sum(any("robust standard deviations" in w for w in told(16, seed, 1.0).warnings) for seed in range(25))
    assert named >= 20 and alarms <= 2


def laws_fit(data, loss):
    return fitting.fit(forms.chinchilla, data, loss=loss)


def test_a_law_of_your_own_without_bounds():
    """A scale that no start grid holds is found because the law is linear in it."""

    def mine(params, *, E, A, alpha):
        return E + A * params**-alpha

    x = np.geomspace(1e7, 1e10, 12)
    found = fitting.fit(mine, {"params": x, "loss": 1.8 + 482 / x**0.3478})
    assert found.params == pytest.approx({"E": 1.8, "A": 482.0, "alpha": 0.3478}, rel=1e-5)
    assert found.form.linear == ("E", "A")


def test_a_law_no_better_than_a_constant_says_so():
    x = np.arange(1.0, 13)
    found = fitting.fit(forms.power, {"params": x, "loss": 3 + (-1.0) ** x})
    assert any(w.startswith("no better than a constant") for w in found.warnings)


@pytest.mark.parametrize("loss", ["lsq", "log", "huber"])
def test_two_sizes_never_determine_three_parameters(loss):
    """Even where the search stops on the ridge's end, at E = 0."""
    rng = np.random.default_rng(0)
    size, tokens = np.repeat([1e8, 1e9], 8), np.tile(np.geomspace(1e9, 1e11, 8), 2)
    truth = {"E": 0.05, "A": 482.0, "B": 2085.0, "alpha": 0.348, "beta": 0.366}
    clean = forms.chinchilla.predict(truth, {"params": size, "tokens": tokens})
    for _ in range(8):
        y = clean * np.exp(0.01 * rng.standard_normal(16))
        found = fitting.fit(forms.chinchilla, {"params": size, "tokens": tokens, "loss": y}, loss=loss)
        assert not found.identified and any("cannot tell" in w for w in found.warnings)


def test_rewards_may_be_negative():
    c = np.geomspace(1, 1e4, 15)
    reward = forms.sigmoid.predict({"R_0": -0.36, "A": 0.6, "C_mid": 80.0, "B": 1.2}, {"compute": c})
    found = fitting.fit(forms.sigmoid, {"compute": c, "reward": reward})
    assert found.params == pytest.approx({"R_0": -0.36, "A": 0.6, "C_mid": 80.0, "B": 1.2}, rel=1e-4)
    percent = fitting.fit(forms.sigmoid, {"compute": c, "reward": 100 * reward})
    assert percent["A"] == pytest.approx(60.0, rel=1e-4)
    with pytest.raises(ValueError, match="compute = 0.0 in row 0: sigmoid takes finite numbers above zero"):
        fitting.fit(forms.sigmoid, {"compute": c - 1, "reward": reward})
