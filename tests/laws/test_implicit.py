"""The trajectory law, implicit in its loss: against SciPy's bracketing root finder, its limits, its identities, planted points."""

import dataclasses
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from scaling_jax import laws
from scaling_jax.laws import forms, implicit

KAPLAN = {"N_c": 8.8e13, "alpha_N": 0.076, "S_c": 2.1e3, "alpha_S": 0.76, "B_star": 2.1e8, "alpha_B": 0.21}
decade = lambda low, high: st.floats(low, high).map(lambda x: 10.0**x)
SETS = st.fixed_dictionaries(
    {
        "N_c": decade(2, 18),
        "alpha_N": st.floats(0.005, 2.0),
        "S_c": decade(-2, 7),
        "alpha_S": st.floats(0.05, 5.0),
        "B_star": decade(-2, 14),
        "alpha_B": decade(-1.69, 0.69),
    }
)
PLACES = st.fixed_dictionaries({"params": decade(2, 12), "steps": decade(0, 7), "batch": decade(1, 8)})


def bracketed(p, x):
    """The root in ln(L - floor), which the function there rises through with a slope of 1 or more."""
    floor = p.get("E", 0.0) + (p["N_c"] / x["params"]) ** p["alpha_N"]

    def gap(u):
        share = np.log(p["B_star"] / x["batch"]) - np.log(floor + np.exp(u)) / p["alpha_B"]
        return u - p["alpha_S"] * (np.log(p["S_c"] / x["steps"]) + np.logaddexp(0.0, share))

    return floor + np.exp(brentq(gap, -600, 600, xtol=1e-13, rtol=1e-14, maxiter=1000))


def at(p, x):
    form = forms.trajectory_floor if "E" in p else forms.trajectory
    return float(form.predict(p, {name: np.array([value]) for name, value in x.items()})[0])


@settings(max_examples=150)
@given(SETS, PLACES, st.sampled_from([None, 0.0, 0.3, 1.8]))
def test_it_is_the_root_that_bracketing_finds(p, x, floor):
    p = p if floor is None else {"E": floor, **p}
    assert at(p, x) == pytest.approx(bracketed(p, x), rel=1e-10)


def test_one_call_solves_ten_thousand_problems():
    """All at once, twenty decades of everything: no problem holds another up, and none runs in circles."""
    rng, n = np.random.default_rng(0), 10_000
    ends = {
        "N_c": (2, 18),
        "S_c": (-2, 7),
        "B_star": (-2, 14),
        "params": (2, 12),
        "steps": (0, 7),
        "batch": (1, 8),
        "alpha_B": (-1.69, 0.69),
    }
    drawn = {name: 10 ** rng.uniform(*pair, n) for name, pair in ends.items()}
    drawn |= {"alpha_N": rng.uniform(0.005, 2, n), "alpha_S": rng.uniform(0.05, 5, n)}
    p, x = ({name: drawn[name] for name in names} for names in (forms.trajectory.params, forms.trajectory.inputs))
    excess = implicit.loss(p, x) - (p["N_c"] / x["params"]) ** p["alpha_N"]
    share = np.logaddexp(0, np.log(p["B_star"] / x["batch"]) - np.log(implicit.loss(p, x)) / p["alpha_B"])
    right = p["alpha_S"] * (np.log(p["S_c"] / x["steps"]) + share)
    seen = excess > 1e-3 * implicit.loss(p, x)  # below, the difference above has lost its digits
    np.testing.assert_allclose(np.log(excess[seen]), right[seen], rtol=1e-9, atol=1e-9)


@settings(max_examples=60)
@given(SETS, PLACES)
def test_derivatives_in_closed_form_are_those_along_the_imaginary_axis(p, x):
    """Two ways to the same numbers: the theorem of implicit functions, and a last step with complex parameters."""
    columns = {name: np.array([value]) for name, value in x.items()}
    values = np.array([[p[name] for name in forms.trajectory.params]])
    y, slopes = forms.trajectory.derivatives(values, columns)
    again, stepped = dataclasses.replace(forms.trajectory, partials=None).derivatives(values, columns)
    np.testing.assert_allclose(y, again, rtol=1e-11)
    scale = np.abs(slopes * values).max()  # of a change of one e-fold, the largest of any parameter
    np.testing.assert_allclose(slopes * values, stepped * values, rtol=1e-7, atol=1e-9 * scale)


@settings(max_examples=60)
@given(st.floats(0.7, 1.4), st.floats(3, 6), st.floats(4, 8), st.floats(5, 11))
def test_derivatives_are_those_of_finite_differences(share, steps, batch, size):
    columns = {"params": np.array([10**size]), "steps": np.array([10**steps]), "batch": np.array([10**batch])}
    values = np.array([[v * share for v in KAPLAN.values()]])
    _, slopes = forms.trajectory.derivatives(values, columns)
    for i, name in enumerate(KAPLAN):
        sides = [{**dict(zip(KAPLAN, values[0], strict=True)), name: values[0, i] * (1 + sign * 1e-5)} for sign in (1, -1)]
        above, below = (forms.trajectory.predict(side, columns)[0] for side in sides)
        assert slopes[0, 0, i] == pytest.approx((above - below) / (2e-5 * values[0, i]), rel=1e-6)


@settings(max_examples=60)
@given(SETS, PLACES)
def test_the_batch_without_end_is_kaplans_law(p, x):
    """B -> infinity: L(N, S) of forms.kaplan with S_min = S; and B_star = 0 says the same."""
    wanted = float(forms.kaplan.predict(p, {"params": [x["params"]], "steps_min": [x["steps"]]})[0])
    assert at({**p, "B_star": 0.0}, x) == pytest.approx(wanted, rel=1e-12)
    assert at(p, {**x, "batch": 1e300}) == pytest.approx(wanted, rel=1e-9)


@settings(max_examples=60)
@given(SETS, PLACES)
def test_steps_and_tokens_trade_along_a_hyperbola(p, x):
    """(S / S_min - 1) (T / T_min - 1) = 1 at the law's own loss, S_min from forms.kaplan, T_min = S_min B_crit; at B_crit S = 2 S_min."""
    floor, loss = (p["N_c"] / x["params"]) ** p["alpha_N"], at(p, x)
    if not loss - floor > 1e-6 * loss:
        return  # the run is at its floor, where no digit is left to tell how many steps it took
    least = p["S_c"] * (loss - floor) ** (-1 / p["alpha_S"])
    critical = float(forms.critical_batch.predict(p, {"loss": [loss]})[0])
    if not 1e-6 * critical < x["batch"] < 1e6 * critical:
        return
    tokens = x["steps"] * x["batch"]
    assert (x["steps"] / least - 1) * (tokens / (least * critical) - 1) == pytest.approx(1.0, rel=1e-2)
    hyperbola = {"S_min": least, "T_min": least * critical}
    assert float(forms.batch_tradeoff.predict(hyperbola, {"batch": [x["batch"]]})[0]) == pytest.approx(x["steps"], rel=1e-2)
    assert at(p, {**x, "batch": critical, "steps": 2 * least}) == pytest.approx(loss, rel=1e-6)


@settings(max_examples=60)
@given(SETS, PLACES, st.floats(1.01, 10))
def test_the_loss_falls_with_size_steps_and_batch(p, x, factor):
    for name in x:
        assert at(p, {**x, name: x[name] * factor}) <= at(p, x) * (1 + 1e-12)


def study_points(seed, floor=False):
    """Points as a study has them (four sizes, four batches, eleven steps each), of parameters drawn around what such runs give."""
    rng = np.random.default_rng(seed)
    sizes, batches = np.array([8e2, 3e3, 1.2e4, 4.8e4]), np.array([128.0, 512, 1024, 2048])
    rows = [(n, s, b) for n in sizes for b in batches for s in np.linspace(1, 11, 11) * (18 * (2048 / b) ** 0.6)]
    x = dict(zip(("params", "steps", "batch"), np.array(rows).T, strict=True))
    level, gap, aN, aS, aB = (
        rng.uniform(1.2, 3),
        rng.uniform(0.2, 1.5),
        rng.uniform(0.08, 0.3),
        rng.uniform(0.3, 1.2),
        rng.uniform(0.15, 0.6),
    )
    p = {"E": rng.uniform(0.3, 1.5)} if floor else {}
    p |= {"N_c": 3e3 * level ** (1 / aN), "alpha_N": aN, "S_c": np.median(x["steps"]) * gap ** (1 / aS), "alpha_S": aS}
    return x, p | {"B_star": 500 * 10 ** rng.uniform(-0.5, 1) * (level + gap) ** (1 / aB), "alpha_B": aB}


@pytest.mark.parametrize("seed", range(6))
def test_planted_parameters_come_back_at_the_size_of_a_study(seed):
    x, p = study_points(seed)
    found = laws.fit(forms.trajectory, {**x, "loss": forms.trajectory.predict(p, x)})
    assert found.converged and found.identified and found.params == pytest.approx(p, rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_the_floor_comes_back_too(seed):
    x, p = study_points(seed, floor=True)
    found = laws.fit(forms.trajectory_floor, {**x, "loss": forms.trajectory_floor.predict(p, x)})
    assert found["E"] == pytest.approx(p["E"], abs=1e-3) and found["alpha_S"] == pytest.approx(p["alpha_S"], rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_noise_of_half_a_percent_leaves_exponents_near(seed):
    """In far less than two CPU seconds; the second solver, SciPy's, finds no lower objective."""
    x, p = study_points(seed)
    y = forms.trajectory.predict(p, x) * np.exp(0.005 * np.random.default_rng(seed).standard_normal(len(x["steps"])))
    begin = time.process_time()
    found = laws.fit(forms.trajectory, {**x, "loss": y})
    assert time.process_time() - begin < 2
    truth = float(((np.log(y) - np.log(forms.trajectory.predict(p, x))) ** 2).sum())
    assert found.objective <= truth and found["alpha_N"] == pytest.approx(p["alpha_N"], rel=0.15)
    assert found["alpha_B"] == pytest.approx(p["alpha_B"], rel=0.35)
    if seed == 0:
        assert found.objective <= laws.fit(forms.trajectory, {**x, "loss": y}, solver="scipy").objective * (1 + 1e-9)


def test_where_size_does_not_matter_the_size_term_ends_at_its_bound():
    """N_c runs to zero, where its slope is so steep that the square of it overflows: no warning, and the rest is found."""
    x, _ = study_points(0)
    truth = {"S_c": 8.0, "alpha_S": 0.6}
    y = (truth["S_c"] * (1 + 1500 / x["batch"]) / x["steps"]) ** truth["alpha_S"]
    found = laws.fit(forms.trajectory, {**x, "loss": y * np.exp(0.01 * np.random.default_rng(0).standard_normal(len(y)))})
    assert found["N_c"] < 1e-200 and any("N_c" in one for one in found.warnings)
    assert {name: found[name] for name in truth} == pytest.approx(truth, rel=0.2)


def test_a_fixed_floor_of_zero_is_the_law_without_one():
    x, p = study_points(0)
    y = forms.trajectory.predict(p, x) * np.exp(0.005 * np.random.default_rng(0).standard_normal(len(x["steps"])))
    without, fixed = laws.fit(forms.trajectory, {**x, "loss": y}), laws.fit(forms.trajectory_floor, {**x, "loss": y}, fixed={"E": 0.0})
    assert fixed.objective == pytest.approx(without.objective, rel=1e-9)
    assert {k: fixed[k] for k in without.params} == pytest.approx(dict(without.params), rel=1e-4)
