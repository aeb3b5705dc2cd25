"""Held-out comparison, shared parameters, figures and how far a prediction lies beyond its points."""

import numpy as np
import pandas as pd
import pytest

from scaling_jax import laws
from scaling_jax.laws import compare, derived, forms, record
from scaling_jax.laws.form import NotTestable

TRUTH = {"E": 0.69, "A": 1.131e7, "alpha": 0.1894, "k": 0.3935}
SIZES = np.geomspace(5e8, 5e9, 6)


def streams(law=forms.parscale, noise=0.0, seed=0, params=TRUTH):
    data = {"params": np.repeat(SIZES, 4), "streams": np.tile([1.0, 2, 4, 8], 6)}
    loss = law.predict(params, data)
    return pd.DataFrame({**data, "loss": loss * np.exp(noise * np.random.default_rng(seed).standard_normal(24))})


def test_the_law_that_made_the_points_predicts_the_largest():
    for law, params, rival in ((forms.parscale, TRUTH, "parscale_power"), (forms.parscale_power, TRUTH | {"k": 0.2}, "parscale")):
        table = compare.held_out([forms.parscale, forms.parscale_power], streams(law, 1e-4, params=params), by="streams")
        assert table.index[0] == law.name and table.index[1] == rival
        assert table.loc[law.name, "held_out"] == 6 and table.loc[law.name, "fitted"] == 18
        assert table.loc[law.name, "median_error"] < 0.001 < table.loc[rival, "median_error"] * 10
        assert table.loc[law.name, "log_score"] > table.loc[rival, "log_score"]


def test_a_law_that_cannot_be_fitted_is_a_note():
    table = compare.held_out([forms.power, forms.chinchilla], streams(noise=1e-3).assign(tokens=1e9), by="params", share=0.3)
    assert table.loc["chinchilla", "note"].startswith("no degree of freedom") and np.isnan(table.loc["chinchilla", "median_error"])
    with pytest.raises(NotTestable, match="24 of 24 points"):
        compare.held_out([forms.power], streams(), by="params", above=0)


def test_shared_parameters_against_two_fits():
    """One alpha for two sources; with nothing in common the joint fit is the two fits."""
    rng = np.random.default_rng(0)
    parts = [{"params": SIZES, "loss": e + a * (SIZES / 5e8) ** -0.5 + 0.001 * rng.standard_normal(6)} for e, a in ((2.0, 1.0), (3.0, 0.5))]
    data = {
        "params": np.tile(SIZES / 5e8, 2),
        "group": np.repeat([0.0, 1.0], 6),
        "loss": np.concatenate([part["loss"] for part in parts]),
    }
    apart = laws.fit(compare.pooled(forms.power, ["c4", "rw"], ()), data)
    for i, group in enumerate(("c4", "rw")):
        alone = laws.fit(forms.power, {"params": SIZES / 5e8, "loss": parts[i]["loss"]})
        for name in ("E", "A", "alpha"):
            assert apart[f"{name}[{group}]"] == pytest.approx(alone[name], rel=1e-5)
    together = laws.fit(compare.pooled(forms.power, ["c4", "rw"], ("alpha",)), data)
    assert set(together.params) == {"alpha", "E[c4]", "E[rw]", "A[c4]", "A[rw]"}
    assert together["alpha"] == pytest.approx(0.5, abs=0.02) and together.objective >= apart.objective
    with pytest.raises(ValueError, match="power has no parameter 'beta'"):
        compare.pooled(forms.power, ["a"], ("beta",))


def test_extrapolation_factors():
    found = laws.fit(forms.parscale, streams(noise=1e-3))
    assert derived.extrapolation(found, {"params": [5e10], "streams": [8.0]}) == pytest.approx({"params": 10.0})
    assert derived.extrapolation(found, {"params": [1e8], "streams": [16.0]}) == pytest.approx({"params": 5.0, "streams": 2.0})
    assert derived.extrapolation(found, {"params": [1e9], "streams": [1.0]}) == {}


def test_a_fit_survives_its_json():
    found = laws.fit(forms.parscale, streams(noise=1e-3))
    again = record.from_json(record.to_json(found))
    assert again == found
    first, second = found.interval("k"), again.interval("k")
    assert (first.low, first.high) == (second.low, second.high)


@pytest.mark.parametrize(
    "law, data",
    [
        (forms.power, {"params": SIZES, "loss": 2 + (SIZES / 5e8) ** -0.5 + 0.01 * np.sin(np.arange(6))}),
        (forms.parscale, streams(noise=1e-3)),
    ],
)
def test_figures_are_drawn(law, data, tmp_path):
    found = laws.fit(law, data)
    figure = found.plot(tmp_path / "fit.svg")
    (axes,) = figure.axes
    assert axes.get_xlabel() == "params" and axes.get_ylabel() == "loss" and axes.get_xscale() == "log"
    assert "</svg>" in (tmp_path / "fit.svg").read_text()


def test_where_and_weights_are_of_the_judged_rows_too():
    one = streams(noise=1e-3)
    both = pd.concat([one.assign(ds="a"), one.assign(ds="b", loss=3 * one["loss"])], ignore_index=True)
    alone = compare.held_out([forms.parscale], one, by="params")
    chosen = compare.held_out([forms.parscale], both, by="params", where={"ds": "a"}, weights=np.ones(48))
    assert chosen.loc["parscale", "median_error"] == alone.loc["parscale", "median_error"]
    assert chosen.loc["parscale", "held_out"] == alone.loc["parscale", "held_out"]


def test_aic_of_two_losses_is_not_compared():
    data = streams(noise=1e-3)
    mixed = compare.held_out([forms.parscale, forms.power], data, by="streams")
    assert mixed["aic"].isna().all()
    assert np.isfinite(compare.held_out([forms.parscale, forms.power], data, by="streams", loss="log")["aic"]).all()
    with pytest.raises(ValueError, match="two are called 'parscale'"):
        compare.held_out([forms.parscale, forms.parscale], data, by="streams")


def test_a_group_that_is_none_of_them():
    data = {"params": np.tile(SIZES / 5e8, 2), "group": np.repeat([1.0, 2.0], 6), "loss": np.linspace(3, 2, 12)}
    with pytest.raises(ValueError, match="group = 2: expected 0 to 1"):
        laws.fit(compare.pooled(forms.power, ["a", "b"], ()), data)


def test_another_law_of_one_name_is_refused():
    def power(params, *, E=(0, np.inf), A=(0, np.inf), alpha=(0.01, 5)):
        return E + A * np.exp(-alpha * params)

    x = np.linspace(0.1, 4, 9)
    entry = record.to_json(laws.fit(power, {"params": x, "loss": 1 + np.exp(-0.7 * x)}))
    with pytest.raises(record.records.ConfigError, match="it is of another law than power is now"):
        record.from_json(entry)
    with pytest.raises(record.records.ConfigError, match="schema 99"):
        record.from_json({**entry, "schema": 99})
    old = record.to_json(laws.fit(forms.power, {"params": x, "loss": 1 + x**-0.7}, loss="log"))
    old = {name: value for name, value in old.items() if name not in ("loss", "delta", "aic", "bounds")} | {"schema": 1}
    again = record.from_json(old)
    assert again.loss == "log" and np.isnan(again.aic)


def test_clusters_stay_with_the_fit():
    """Five seeds that each shift all their rows: a band that counts rows is far too narrow, in a fit read back too."""
    rng = np.random.default_rng(1)
    x, seed = np.tile(np.geomspace(1, 64, 6), 5), np.repeat(np.arange(5), 6)
    y = (2 + x**-0.5) * np.exp(0.01 * rng.standard_normal(5)[seed] + 0.001 * rng.standard_normal(30))
    rows = laws.fit(forms.power, {"params": x, "loss": y}, loss="log")
    found = laws.fit(forms.power, {"params": x, "loss": y}, loss="log", clusters=seed)
    width = lambda one: float(one.high[0] - one.low[0])
    assert width(found.band(params=8.0)) > 2 * width(rows.band(params=8.0))
    assert found.interval("E").method == "jackknife" and found.interval("E").dof == 4
    again = record.from_json(record.to_json(found))
    assert width(again.band(params=8.0)) == width(found.band(params=8.0))
    with pytest.raises(ValueError, match="clusters: expected 30 labels"):
        laws.fit(forms.power, {"params": x, "loss": y}, clusters=[1, 2])


def test_clusters_are_those_of_the_rows_kept():
    x = np.repeat(np.geomspace(1e6, 1e9, 6), 3)
    data = {"params": x, "loss": 1.7 + 400 * x**-0.34 + 0.01 * np.random.default_rng(0).standard_normal(18)}
    label = np.tile(["a", "b", "c"], 6)
    plain, clustered = (compare.held_out([forms.power], data, by="params", **how) for how in ({}, {"clusters": label}))
    assert clustered["median_error"].tolist() == plain["median_error"].tolist() and not clustered["note"].tolist()[0]
