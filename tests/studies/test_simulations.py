"""Studies that simulate: identities, guards, kills and resumes, rows, plans; alone and beside training."""

import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scaling_jax.laws import intervals
from scaling_jax.records import ConfigError, field
from scaling_jax.studies import cohorts, outcome, runner, simulations, units, worlds
from scaling_jax.studies import study as studies
from scaling_jax.studies.rows import Data
from scaling_jax.train import loop, trajectory
from tests.studies import simulated_study as module
from tests.studies.simulated_study import Largest, largest

SIMULATED = str(Path(module.__file__))
TRAINED = str(Path(module.__file__).with_name("small_study.py"))
UNITS = 6 + 8 + 1  # tuning, judged, read from a table


def promised(folder):
    """name -> bytes of all that must not depend on kills."""
    out = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.glob("runs/*/*.json"))}
    out |= {p.relative_to(folder).as_posix(): p.read_bytes() for p in [folder / "rows.csv", folder / "plan.json"]}
    return out | {"claims": json.dumps(json.loads((folder / "verdict.json").read_text())["claims"])}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, runner.run(SIMULATED, "smoke", folder, quiet=True)


# --- identity and guards ---------------------------------------------------------------------------------------


def test_identity_is_function_settings_and_seed():
    one = units.simulate(largest, Largest(), 3, group="a")
    assert (one.kind, one.label, one.parents) == ("simulate", {"group": "a"}, ())
    assert one.identity == units.simulate(largest, Largest(), np.int64(3), group="b").identity, "labels are for people"
    assert one.identity == units.simulate(largest, Largest(scale=1), 3).identity, "1 is the float 1.0"
    others = [
        units.simulate(largest, Largest(), 4),
        units.simulate(largest, Largest(n=5), 3),
        units.simulate(largest, module.Published(), 3),
        units.simulate(module.published, Largest(), 3),
    ]
    assert len({one.identity, *(u.identity for u in others)}) == 5
    assert one.cell == others[0].cell and one.cell not in {u.cell for u in others[1:]}
    assert (one.identity, one.cell) == ("71af452b57339b5b", "be11988b91ea4a38"), "a directory on disk is found again by these"


@dataclass(frozen=True)
class Later:
    """Settings as they may look a release later."""

    n: int = field(4)
    added: bool = field(False, off=False)
    threads: int = field(1, recorded=True)


def test_a_setting_added_later_changes_no_identity_while_off():
    identity = lambda **changed: units.simulate(largest, Later(**changed), 0).identity
    assert identity() == identity(threads=8) != identity(added=True)


def test_what_is_no_simulation_is_refused():
    def inside(settings, seed):
        return {}

    for function in (inside, lambda settings, seed: {}, "largest"):
        with pytest.raises(ValueError, match="at its top level"):
            units.simulate(function, Largest(), 0)

    @dataclass
    class Loose:
        n: int = 3

    for settings in (Loose(), Largest, {"n": 3}):
        with pytest.raises(ValueError, match="frozen dataclass"):
            units.simulate(largest, settings, 0)
    for seed in (True, 1.0, -1, None):
        with pytest.raises(ValueError, match="seed"):
            units.simulate(largest, Largest(), seed)
    with pytest.raises(ConfigError, match=r"largest.settings.n = 0: must be at least 1"):
        units.simulate(largest, Largest(n=0), 0)


def test_seeds_keep_their_side():
    test = module.STUDY.at("smoke")
    tune = replace(test, split="tune")
    with pytest.raises(studies.SplitError, match="seed 0 in a tune stage"):
        tune.simulate(largest, Largest(), 0)
    with pytest.raises(studies.SplitError, match="seed 1000000 in a test stage"):
        test.simulate(largest, Largest(), studies.TUNING_SEED)
    seen = test.simulate(largest, Largest(), 0)
    assert test.metrics(seen) is None
    test.results[seen.identity] = {"time": 2.0}
    assert test.metrics(seen) == {"time": 2.0}
    with pytest.raises(studies.SplitError, match="seed 0 in a tune stage"):
        tune.metrics(seen)
    run = runner.load(TRAINED)[0].at("smoke").run({"seed": 0})
    with pytest.raises(ValueError, match="state.metrics is for simulations"):
        test.metrics(run)


def test_a_study_that_trains_nothing_opens_no_corpus(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "open_corpus", pytest.fail)
    monkeypatch.setattr(studies, "open_corpus", pytest.fail)
    assert runner.run(SIMULATED, "smoke", tmp_path, quiet=True) == undisturbed[1]
    state = module.STUDY.at("smoke")
    assert state.base is None
    with pytest.raises(ValueError, match="base=None"):
        state.run({"seed": 0})
    with pytest.raises(ConfigError, match=r"config\.model\.width = '8': this study trains nothing"):
        runner.run(SIMULATED, "smoke", tmp_path / "w", overrides={"model.width": "8"}, quiet=True)
    assert not (tmp_path / "w").exists()


# --- runs ------------------------------------------------------------------------------------------------------


def test_a_directory_of_simulations(undisturbed):
    folder, verdicts = undisturbed
    for name in ("plan.json", "rows.csv", "fit.json", "verdict.json", "report.html", "study.json"):
        assert (folder / name).is_file(), name
    assert [v.verdict for v in verdicts] == ["holds", "holds", "fails"]
    results = [json.loads(p.read_text()) for p in folder.glob("runs/*/result.json")]
    assert len(results) == UNITS and {r["kind"] for r in results} == {"simulate"}
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["cohorts"] == [] and sum(map(len, plan["simulations"].values())) == UNITS
    told = json.loads((folder / "verdict.json").read_text())["provenance"]
    assert told["corpus"].startswith("no corpus") and told["simulation_seconds"] > 0 and "training_seconds" not in told
    assert "simulations" in (folder / "report.html").read_text()


def test_rows_are_settings_labels_seed_and_metrics(undisturbed):
    rows = pd.read_csv(undisturbed[0] / "rows.csv")
    own = rows[rows["group"] == "chosen"]
    assert set(own["n"]) == {8} and own["seed"].tolist() == [0, 1, 2, 3] and set(own["draws"]) == {50} and set(own["stage"]) == {"judge"}
    assert own["time"].tolist() == [largest(Largest(n=8), seed)["time"] for seed in range(4)]
    harmonic = sum(1 / k for k in range(1, 9))
    assert abs(own["time"].mean() - harmonic) < 5 * own["spread"].mean() / math.sqrt(200), "the closed form"
    assert "first" not in rows.columns, "a list is no column"
    table = rows[rows["group"] == "published"]
    assert table["time"].tolist() == list(module.TABLE) and set(table["source"]) == {"a table"}


def test_a_published_run_is_an_observation_of_its_own():
    state = module.STUDY.at("smoke")
    unit = state.simulate(module.published, module.Published(), 0, group="published")
    own = state.simulate(largest, Largest(), 0)
    state.results.update({u.identity: u.config.function(u.config.settings, 0) for u in (unit, own)})
    frame, cells = studies.rows(module.STUDY, state, {"judge": [unit, own]})
    assert cells == {own.identity: own.cell} | {f"{unit.identity}/run {i}": "published" for i in range(5)}
    found = intervals.jackknife(
        lambda dropped: Data(frame, cells).where(group="published").drop(dropped).mean("time"), Data(frame, cells).strata
    )
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 4, np.mean(module.TABLE), stats.sem(module.TABLE)))
    bare = replace(module.STUDY, rows=lambda unit, metrics, runs: [{"runs": (f"{unit.identity}/x",), "seen": len(runs)}])
    frame, cells = studies.rows(bare, state, {"judge": [unit]})
    assert cells == {f"{unit.identity}/x": unit.cell} and frame["seen"].tolist() == [1]
    twice = replace(module.STUDY, rows=lambda unit, metrics, runs: [{"runs": ("a",), "cell": c} for c in "xy"])
    with pytest.raises(ValueError, match="a run belongs to one cell"):
        studies.rows(twice, state, {"judge": [unit]})
    with pytest.raises(ValueError, match="run = 3 in a row: expected text"):
        simulations.rows(unit, {"rows": [{"run": 3}]})


def test_rows_without_a_run_depend_on_the_simulation():
    unit = units.simulate(largest, Largest(), 0)
    rows = simulations.rows(unit, {"time": 1.0, "rows": [{"step": 1}, {"step": 2, "time": 3.0}]})
    assert [(r["step"], r["time"], r["runs"]) for r in rows] == [(1, 1.0, (unit.identity,)), (2, 3.0, (unit.identity,))]
    assert simulations.rows(unit, {"rows": []}) == []


def test_a_second_start_simulates_nothing(undisturbed, monkeypatch):
    folder, verdicts = undisturbed
    before, stamps = promised(folder), {p: p.stat().st_mtime_ns for p in folder.glob("runs/*/*")}
    monkeypatch.setattr(simulations, "run", pytest.fail)
    assert runner.run(SIMULATED, "smoke", folder, quiet=True) == verdicts
    assert promised(folder) == before and {p: p.stat().st_mtime_ns for p in folder.glob("runs/*/*")} == stamps


@pytest.mark.parametrize("finished", [0, 1, 5, 6, 7, 14])
def test_stopped_half_way_it_ends_the_same(undisturbed, tmp_path, monkeypatch, finished):
    left, run = [finished], simulations.run

    def stopping(unit, workdir):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return run(unit, workdir)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(simulations, "run", stopping)
        runner.run(SIMULATED, "smoke", tmp_path, quiet=True)
    assert len(list(tmp_path.glob("runs/*/result.json"))) == finished
    calls = []
    monkeypatch.setattr(simulations, "run", lambda unit, workdir: calls.append(unit) or run(unit, workdir))
    runner.run(SIMULATED, "smoke", tmp_path, quiet=True)
    assert len(calls) == UNITS - finished and promised(tmp_path) == promised(undisturbed[0])


@pytest.mark.full
@pytest.mark.parametrize("finished", [1, 4, 9])
def test_killed_with_no_mercy_it_ends_with_the_same_bits(undisturbed, tmp_path, finished):
    command = [sys.executable, "-m", "scaling_jax.cli", "study", SIMULATED, "--scale=smoke", f"--workdir={tmp_path}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(tmp_path.glob("runs/*/result.json"))) < finished:
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "verdict.json").exists(), "killed too late to show anything"
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert promised(tmp_path) == promised(undisturbed[0])


def test_a_half_finished_unit_is_run_again(undisturbed, tmp_path):
    unit = units.simulate(largest, Largest(n=1), 0)
    folder = tmp_path / "runs" / unit.identity
    folder.mkdir(parents=True)
    (folder / "timings.jsonl").write_text('{"seconds": 1e9}\n')
    (folder / ".result.json.1234").write_text('{"metr')
    runner.run(SIMULATED, "smoke", tmp_path, quiet=True)
    assert loop.result(tmp_path, unit.identity)["time"] == largest(Largest(n=1), 0)["time"]
    assert json.loads((folder / "timings.jsonl").read_text())["seconds"] < 1e3


def failing(settings, seed):
    raise ZeroDivisionError("no time at all")


def refusing(settings, seed):
    raise ConfigError("trace: no such file")


def test_a_failure_names_its_settings(tmp_path):
    with pytest.raises(RuntimeError, match=r"failing\(n=7, draws=50, scale=1.0\), seed 3 failed: ZeroDivisionError: no time at all"):
        simulations.run(units.simulate(failing, Largest(n=7), 3), tmp_path)
    with pytest.raises(ConfigError, match=r"refusing\(n=7, .*\), seed 3: trace: no such file"):
        simulations.run(units.simulate(refusing, Largest(n=7), 3), tmp_path)
    assert not list(tmp_path.glob("runs/*/result.json"))


RETURNED = {}


def returning(settings, seed):
    return RETURNED["value"]


@pytest.mark.parametrize(
    "value, words",
    [
        (3.0, "expected a dict of metrics"),
        ({"a": math.inf}, r"metrics\['a'\] = inf"),
        ({"a": [1.0, {"b": -math.inf}]}, r"metrics\['a'\]\[1\]\['b'\] = -inf"),
        ({"a": None}, r"metrics\['a'\] is a NoneType"),
        ({"a": np.zeros(2)}, r"metrics\['a'\] is a ndarray"),
        ({"a": np.int64(2)}, r"metrics\['a'\] is a int64"),
        ({"a": {1: 2}}, r"metrics\['a'\] has the key 1"),
        ({"rows": {"a": 1}}, "one a row"),
        ({"rows": [1]}, "one a row"),
    ],
)
def test_what_is_no_metric_is_refused(tmp_path, monkeypatch, value, words):
    monkeypatch.setitem(RETURNED, "value", value)
    with pytest.raises(RuntimeError, match=words):
        simulations.run(units.simulate(returning, Largest(), 0), tmp_path)


def test_metrics_come_back_as_they_went_in(tmp_path, monkeypatch):
    value = {"a": 0.1, "b": math.nan, "c": [1, [math.nan, "x"]], "d": {"e": (True, 2)}, "rows": [{"f": math.nan, "run": "x"}]}
    monkeypatch.setitem(RETURNED, "value", value)
    unit = units.simulate(returning, Largest(), 0)
    given = simulations.run(unit, tmp_path)
    assert repr(given) == repr(trajectory.read_result(tmp_path / "runs" / unit.identity)) == repr(value | {"d": {"e": [True, 2]}})


# --- plans -----------------------------------------------------------------------------------------------------


def test_a_plan_counts_and_forecasts_only_what_was_measured(undisturbed, tmp_path, capfd):
    assert runner.run(SIMULATED, "smoke", tmp_path / "new", dry_run=True) is None and not (tmp_path / "new").exists()
    shown = capfd.readouterr().out.replace("\n", " ")
    assert "15 simulations to run (largest, published); their time is not forecast" in shown and "nothing was simulated" in shown
    assert "tune may ask for more" in shown and "FLOP" not in shown
    runner.run(SIMULATED, "smoke", tmp_path / "half", until="tune")
    assert "tune: 6 simulations  (" in capfd.readouterr().out
    runner.run(SIMULATED, "smoke", tmp_path / "half", dry_run=True)
    assert "9 simulations to run (largest, published), about" in (shown := capfd.readouterr().out) and "the 6 finished ones" in shown
    runner.run(SIMULATED, "smoke", undisturbed[0], dry_run=True)
    assert "all 15 units are finished already" in capfd.readouterr().out


def test_a_forecast_takes_the_first_of_what_it_only_imagines():
    done = studies.forecast(module.STUDY, module.STUDY.at("smoke"))
    assert {u.config.settings.n for u in done["judge"] if u.label["group"] == "chosen"} == {2}
    unknown = simulations.Imagined()
    assert unknown and unknown["x"] == unknown.get("y", 0.0) == studies.UNKNOWN and "z" in unknown and unknown["rows"] == []


def test_simulations_are_no_cohorts_and_cost_no_flops():
    unit = units.simulate(largest, Largest(), 0)
    assert cohorts.group([unit]) == [] and outcome._spent({"a": [unit], "b": [unit]}) == {"simulations": 1}
    assert outcome._spent({}) == {"runs": 0, "flops": 0.0, "tokens": 0}


def test_a_study_may_train_and_simulate(tmp_path, monkeypatch):
    trained, _ = runner.load(TRAINED)
    stages = (
        studies.Stage("simulate", lambda state: [state.simulate(largest, Largest(), seed, recipe="simulated") for seed in state.seeds(2)]),
        studies.Stage("train", lambda state: [state.run({"seed": seed}, recipe="trained") for seed in state.seeds(2)]),
        studies.Stage(
            "sized by the simulation",
            lambda state: [
                state.simulate(largest, Largest(n=2 + (state.metrics(stages[0].expand(state)[0])["time"] > 0)), 0, recipe="then")
            ],
        ),
    )
    gap = lambda data: data.where(recipe="trained").mean() - data.where(recipe="simulated").mean("time")
    claims = tuple(replace(claim, statistic=gap) for claim in trained.claims)
    mixed = replace(trained, stages=stages, claims=claims)
    monkeypatch.setattr(runner, "load", lambda name: (mixed, "mixed"))
    runner.run("mixed", "smoke", tmp_path, quiet=True)
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert rows["recipe"].tolist() == ["simulated"] * 2 + ["trained"] * 2 + ["then"]
    assert rows["loss"].notna().tolist() == rows["params"].notna().tolist() == [False, False, True, True, False]
    told = json.loads((tmp_path / "verdict.json").read_text())
    assert {"training_seconds", "simulation_seconds"} <= set(told["provenance"])
    world = worlds.World(loss=lambda run: 2.0)
    assert [v.n for v in worlds.live(mixed, "smoke", world, seed=0)] == [4, 4, 4]


def test_planted_worlds_may_plant_simulations():
    null = worlds.World(loss=None, simulate=lambda what, rng: {"time": rng.normal()} if what.function is largest else {"rows": []})
    found = [worlds.live(module.STUDY, "smoke", null, seed, permutations=200)[0].verdict for seed in range(20)]
    assert found.count("holds") <= 3
    real = worlds.live(module.STUDY, "smoke", worlds.World(loss=None), seed=0)
    assert [v.verdict for v in real] == ["holds", "holds", "fails"], "where nothing is planted the simulation runs"
