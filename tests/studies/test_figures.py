"""Charts in both renderers, and the builders against a world whose answers are known."""

import dataclasses
import json
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scaling_jax.laws import derived, fitting, forms
from scaling_jax.studies import claims as claims_
from scaling_jax.studies import figures
from scaling_jax.studies.charts import Chart, Level, Mark, Series, x_ticks
from scaling_jax.studies.charts_plotly import recolor
from scaling_jax.studies.rows import Data

SIZES = {"14k": 14_000, "30k": 30_000, "62k": 62_000, "133k": 133_000}
DECAYS = (0.1, 0.4, 1.6, 3.2, 6.4)


def world(seeds=3):
    """Rows of a made-up study as its runner gives them: two recipes over sizes, a sweep of weight decay, teams; and their cells."""
    rng, rows, cells = np.random.default_rng(7), [], {}

    def add(loss, cell, seed, **columns):
        run = f"{cell}-{seed}"
        cells[run] = cell
        rows.append(
            {
                "members": 1,
                "seed": seed,
                "loss": loss + rng.normal(0, 0.012),
                "runs": (run,),
                "weight_decay": 0.1,
                "size": "133k",
                "params": 133_000,
                **columns,
            }
        )

    for recipe, floor, scale, power in (("standard", 2.62, 60.0, 0.5), ("regularized", 2.31, 75.0, 0.5)):
        for size, params in SIZES.items():
            for seed in range(seeds):
                add(floor + scale * params**-power, f"{recipe}-{size}", seed, recipe=recipe, size=size, params=params)
    for decay in DECAYS:
        for seed in range(seeds):
            add(2.5 + 0.05 * math.log(decay / 1.2) ** 2, f"decay-{decay}", seed, recipe="decay sweep", weight_decay=decay)
    for seed in range(5):
        add(2.55, "member", seed, recipe="member")
    for count in (2, 3, 4, 5):
        for first in range(5 if count < 5 else 1):
            runs = tuple(f"member-{(first + i) % 5}" for i in range(count))
            loss = 2.40 + 0.15 / count + 0.004 * sum(int(run[-1]) - 2 for run in runs) / count
            rows.append({**rows[-1], "recipe": "team", "members": count, "seed": -1, "loss": loss, "runs": runs})
    return Data(pd.DataFrame(rows), cells)


def full_chart():
    series = (
        Series(
            "means",
            (1.0, 10.0, 100.0),
            (3.25, 2.5, 2.125),
            (3.0, 2.25, math.nan),
            (3.5, 2.75, math.nan),
            ((1.0, 3.125), (1.0, 3.375)),
            "line",
            0,
            (2, 2, 1),
        ),
        Series("law & fit", (1.0, 100.0), (3.1875, 2.0625), style="dash", color=1),
        Series("<bars>", (1.0, 10.0), (2.875, 2.625), (2.8, 2.6), (2.9, 2.7), style="points", color=2),
        Series("one run", (1.0, 50.0), (2.75, 2.7), style="thin", color=3),
    )
    return Chart(
        "A title",
        "A caption",
        "parameters",
        "loss",
        series,
        (Level(1.9375, "E", 1.8, 2.0, 0),),
        (Mark(20.0, 2.25, "minimum", 10.0, 40.0, 1),),
        x_log=True,
    )


def draw(figure, data=None, read=None):
    return figure(world() if data is None else data, read)


def one(chart, name):
    return next(series for series in chart.series if series.name == name)


# --- renderers -----------------------------------------------------------------------------------------------


def test_svg_is_deterministic_xml_that_shows_every_series(tmp_path):
    for name in ("a.svg", "b.svg"):
        figures.svg(full_chart(), tmp_path / name)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert first == second
    text = "".join(ET.fromstring(first).itertext())
    for wanted in ("A title", "parameters", "means", "law & fit", "<bars>", "E = 1.938 [1.8, 2]", "minimum 20 [10, 40]"):
        assert wanted in text
    assert b"dc:date" not in first and b"one run" not in first


def test_svg_differs_where_a_value_does(tmp_path):
    chart = full_chart()
    moved = dataclasses.replace(chart, series=(dataclasses.replace(chart.series[0], y=(3.25, 2.4, 2.125)), *chart.series[1:]))
    figures.svg(chart, tmp_path / "a.svg")
    figures.svg(moved, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() != (tmp_path / "b.svg").read_bytes()


def test_plotly_carries_every_value():
    figure = json.loads(json.dumps(figures.plotly_figure(full_chart()), allow_nan=False))
    lines = {t["name"]: t for t in figure["data"] if t.get("showlegend", True)}
    assert set(lines) == {"means", "law &amp; fit", "&lt;bars&gt;"}
    assert lines["means"]["y"] == [3.25, 2.5, 2.125] and lines["means"]["x"] == [1.0, 10.0, 100.0]
    assert lines["means"]["text"] == [
        "means, 1: 3.25 [3, 3.5], n = 2",
        "means, 10: 2.5 [2.25, 2.75], n = 2",
        "means, 100: 2.125, no interval, n = 1",
    ]
    assert lines["&lt;bars&gt;"]["error_y"]["array"] == pytest.approx([0.025, 0.075])
    band = next(t for t in figure["data"] if t.get("fill") == "toself")
    assert band["x"] == [1.0, 10.0, 10.0, 1.0] and band["y"] == [3.0, 2.25, 2.75, 3.5]
    assert any(t["y"] == [3.125, 3.375] for t in figure["data"])
    assert [s["type"] for s in figure["layout"]["shapes"]] == ["rect", "line", "line"]  # the level with its interval, the mark
    low, high = figure["layout"]["yaxis"]["range"]
    assert low < 1.8 and high > 3.5  # the level's interval and the band
    assert figure["layout"]["xaxis"]["type"] == "log" and figure["layout"]["yaxis"]["type"] == "linear"
    assert any("E = 1.938 [1.8, 2]" == a["text"] for a in figure["layout"]["annotations"])


def test_every_colour_of_a_figure_has_a_dark_one():
    text, known = json.dumps(figures.plotly_figure(full_chart())), {light for light, _ in recolor()}
    used = set(re.findall(r'"(#[0-9a-f]{6}|rgba\([^"]*\))"', text)) - {"rgba(0,0,0,0)"}
    assert used and used <= known


def test_empty_chart_draws(tmp_path):
    figures.svg(Chart("Nothing yet", notes=("no row",)), tmp_path / "a.svg")
    assert b"no row" in (tmp_path / "a.svg").read_bytes()
    empty = figures.plotly_figure(Chart("Nothing yet", notes=("no <row>",)))
    assert empty["data"] == [] and empty["layout"]["annotations"][0]["text"] == "no &lt;row&gt;"


@pytest.mark.parametrize(
    "value, said", [(0.24014, "0.2401"), (133_120, "133,120"), (3.2e14, "3.2e+14"), (0.0, "0"), (None, "–"), (math.nan, "–")]
)
def test_numbers_for_people(value, said):
    assert figures.number(value) == said


def test_intervals_for_people():
    assert figures.between(1.0, 2.5) == "[1, 2.5]"
    assert figures.between(None, None) == figures.between(math.nan, 1.0) == "no interval"


def test_series_refuses_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="style = 'wavy'"):
        Series("a", (1,), (1,), style="wavy")
    with pytest.raises(ValueError, match="low has 2 values for 1 of x"):
        Series("a", (1,), (1,), low=(1, 2))


# --- builders ------------------------------------------------------------------------------------------------


def test_interval_of_curves_is_scipys_t_interval():
    data = world()
    chart = draw(figures.curves("Loss", "params", by="recipe", where={"recipe": ["standard", "regularized"]}), data)
    assert [s.name for s in chart.series] == ["standard", "regularized"] and chart.x_log
    line = one(chart, "regularized")
    for i, params in enumerate(line.x):
        loss = data.where(recipe="regularized", params=params)["loss"]
        low, high = stats.t.interval(0.95, len(loss) - 1, loss.mean(), stats.sem(loss))
        assert (line.y[i], line.low[i], line.high[i]) == pytest.approx((loss.mean(), low, high), rel=1e-12)
        assert sorted(y for x, y in line.dots if x == params) == sorted(loss)
    assert line.counts == (3, 3, 3, 3)


def test_one_seed_has_no_interval_and_says_so():
    chart = draw(figures.curves("Loss", "params", where={"recipe": "standard"}), world(seeds=1))
    assert all(math.isnan(v) for v in chart.series[0].low) and chart.series[0].dots == ()
    assert chart.notes == ("no interval at 14k, 30k, 62k, 133k",)
    assert draw(figures.curves("Loss", "params", where={"recipe": "standard"}, band=None), world(seeds=1)).notes == ()


def test_teams_that_share_members_get_the_jackknife_not_a_t_interval_over_rows():
    data = world()
    line = draw(figures.curves("Teams", "members", where={"recipe": "team", "members": [2]}), data).series[0]
    loss = data.where(recipe="team", members=2)["loss"]
    low, high = stats.t.interval(0.95, len(loss) - 1, loss.mean(), stats.sem(loss))
    assert line.high[0] - line.low[0] > 1.2 * (high - low)


def test_colour_follows_its_group_through_figures():
    both = draw(figures.curves("A", "params", by="recipe", where={"recipe": ["standard", "regularized"]}))
    alone = draw(figures.curves("B", "params", by="recipe", where={"recipe": "regularized"}))
    assert alone.series[0].color == one(both, "regularized").color != one(both, "standard").color


def test_names_on_the_axis_become_ticks_and_zero_takes_the_log_away():
    chart = draw(figures.curves("Loss", "size", where={"recipe": "standard"}))
    assert chart.ticks == ((0.0, "14k"), (1.0, "30k"), (2.0, "62k"), (3.0, "133k")) and not chart.x_log
    data = world()
    data = data.replace("weight_decay", np.zeros(len(data)))
    assert not draw(figures.curves("Loss", "weight_decay", where={"recipe": "standard"}), data).x_log


def test_law_is_drawn_with_its_limit():
    data = world()
    chart = draw(figures.curves("Loss", "params", by="recipe", where={"recipe": "standard"}, form=forms.power, level="E"), data)
    curve, found = one(chart, "standard fit"), fitting.fit(forms.power, data.where(recipe="standard").by("params"))
    assert curve.style == "dash" and curve.y == pytest.approx(tuple(found.predict({"params": np.array(curve.x)})))
    assert all(low < y < high for low, y, high in zip(curve.low, curve.y, curve.high, strict=True))
    (level,) = chart.levels
    assert level.text == "E standard" and level.y == found["E"] and level.low < 2.62 < level.high
    assert one(chart, "standard").style == "points"


def test_law_that_cannot_be_fitted_is_a_note():
    chart = draw(
        figures.curves("Loss", "params", by="recipe", where={"recipe": "standard", "size": ["14k", "30k"]}, form=forms.power, level="E")
    )
    assert chart.notes[0].startswith("standard: no fit drawn, no degree of freedom")
    assert [s.name for s in chart.series] == ["standard"] and chart.levels == ()


def test_law_of_one_seed_is_drawn_without_a_band():
    chart = draw(figures.curves("Loss", "params", where={"recipe": "standard"}, form=forms.power, level="E"), world(seeds=1))
    assert math.isnan(chart.levels[0].low) and all(map(math.isnan, one(chart, "fit").high))


def test_a_bug_in_a_fit_is_not_a_note(monkeypatch):
    monkeypatch.setattr(figures, "fit", lambda *args, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        draw(figures.curves("Loss", "params", form=forms.power))


def test_optimum_finds_the_planted_minimum():
    chart = draw(figures.optimum("Decay", "weight_decay", where={"recipe": "decay sweep"}))
    mark = chart.marks[0]
    assert mark.low < 1.2 < mark.high and 0.8 < mark.x < 1.8 and chart.x_log


def test_optimum_is_that_of_the_claims():
    data = world()
    mark = draw(figures.optimum("Decay", "weight_decay", where={"recipe": "decay sweep"}), data).marks[0]
    assert mark.x == pytest.approx(derived.parabola_minimum(data.where(recipe="decay sweep").by("weight_decay")))


def test_optimum_at_the_edge_is_a_note():
    chart = draw(figures.optimum("Decay", "weight_decay", where={"recipe": "decay sweep", "weight_decay": [1.6, 3.2, 6.4]}))
    assert chart.marks == () and "edge of the grid, 1.6" in chart.notes[0]


def test_trajectories_are_means_over_runs():
    def read(run):
        if run.endswith("-2"):
            raise FileNotFoundError("gone")
        return pd.DataFrame(
            {
                "step": [1, 2, 3],
                "epoch": [1.0, 2.0, 3.0],
                "train/loss": [3.0, 2.5, 2.0 + 0.5 * int(run[-1])],
                "test/loss": [3.0, np.nan, 2.0],
            }
        )

    chart = draw(figures.trajectories("Training", by="size", where={"recipe": "standard", "size": ["14k", "30k"]}), read=read)
    line = one(chart, "14k (2 runs)")
    assert line.x == (1.0, 2.0, 3.0) and line.y == pytest.approx((3.0, 2.5, 2.25)) and line.counts == (2, 2, 2)
    assert sum(s.style == "thin" for s in chart.series) == 4
    assert chart.notes[0].startswith("14k: 1 of 3 trajectories cannot be read")
    sparse = draw(figures.trajectories("Test loss", where={"recipe": "standard", "size": "14k"}, y="test/loss"), read=read)
    assert sparse.series[-1].x == (1.0, 3.0)


def test_no_rows_no_crash():
    empty = {"recipe": "absent"}
    for figure in (
        figures.curves("A", "params", where=empty),
        figures.optimum("B", "weight_decay", where=empty),
        figures.trajectories("C", where=empty),
    ):
        chart = draw(figure, read=lambda run: pd.DataFrame())
        assert chart.series == () and chart.notes


def test_figures_know_their_claims_and_their_file():
    claims = [claims_.Claim(text, len, 0, ">", claims_.permute("recipe"), {"a": 1}) for text in ("first", "second")]
    figure = figures.curves("Loss, by Size!", "params", claims=(2, "first"))
    assert figure.key == "loss-by-size" and figures.claim_texts(figure, claims) == ("second", "first")
    with pytest.raises(ValueError, match="neither a claim's text nor a number from 1 to 2"):
        figures.claim_texts(figures.curves("A", "params", claims=(3,)), claims)


def test_builders_refuse_nonsense():
    with pytest.raises(ValueError, match="band = 'bootstrap'"):
        figures.curves("A", "params", band="bootstrap")
    with pytest.raises(ValueError, match="level = 'E'"):
        figures.curves("A", "params", level="E")
    with pytest.raises(ValueError, match="power has the parameters E, A, alpha"):
        figures.curves("A", "params", form=forms.power, level="C")
    with pytest.raises(ValueError, match="power is a law of params, not of x = 'tokens'"):
        figures.curves("A", "tokens", form=forms.power)


def test_a_log_axis_names_the_measured_values_unless_they_crowd():
    ticks = lambda x: x_ticks(Chart("a", series=(Series("s", x, x),), x_log=True))
    assert ticks((14_000.0, 133_000.0)) == ((14_000.0, "14k"), (133_000.0, "133k"))
    assert ticks((4_400.0,)) == ((4_400.0, "4.4k"),)
    assert ticks((1.0, 1.01, 100.0)) == ticks(()) == ()
