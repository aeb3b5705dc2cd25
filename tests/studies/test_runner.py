"""A study from end to end: adaptive and dependent stages, killed and resumed, and the mistakes of its user."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from scaling_jax.records import ConfigError
from scaling_jax.studies import cohorts, figures, outcome, runner, units
from scaling_jax.studies import study as studies
from scaling_jax.train import loop

ALL = ("smoke", "tiny", "small", "pod")
SMALL = str(Path(__file__).with_name("small_study.py"))


def promised(folder):
    """name -> bytes of all that must not depend on kills; a verdict's provenance is the only part of it that may."""
    out = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if (
            not path.is_file()
            or {"cohorts", "params"} & set(parts)
            or path.name in (".lock", "timings.jsonl", "plan.json", "report.html", "study.json")
        ):
            continue
        out["/".join(parts)] = path.read_bytes()
    verdict = json.loads(out.pop("verdict.json"))
    out["claims"] = json.dumps(verdict["claims"]).encode()
    return out


def command(folder, *more):
    return [sys.executable, "-m", "scaling_jax.cli", "study", SMALL, "--scale=smoke", f"--workdir={folder}", *more]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, runner.run(SMALL, "smoke", str(folder), quiet=True)  # as the shell gives it


def test_every_artifact_is_there(undisturbed):
    folder, verdicts = undisturbed
    for name in ("plan.json", "rows.csv", "fit.json", "verdict.json", "report.html", "study.json"):
        assert (folder / name).is_file(), name
    record = json.loads((folder / "verdict.json").read_text())
    assert [c["verdict"] for c in record["claims"]] == [v.verdict for v in verdicts]
    assert set(record["claims"][0]) >= set("claim statistic value ci95 threshold side n seeds null_p verdict reason paper_value".split())
    assert {"commit", "device", "jax", "corpus", "command"} <= set(record["provenance"])
    plan = json.loads((folder / "plan.json").read_text())
    assert sum(len(c["members"]) for c in plan["cohorts"]) == len(list((folder / "runs").glob("*/trajectory")))


def test_the_adaptive_stage_descended(undisturbed):
    folder, _ = undisturbed
    runs = [json.loads(p.read_text())["config"] for p in folder.glob("runs/*/config.json")]
    tuning = {r["optimizer"]["learning_rate"] for r in runs if r["seed"] >= studies.TUNING_SEED}
    chosen = {r["optimizer"]["learning_rate"] for r in runs if r["seed"] < studies.TUNING_SEED}
    assert tuning == {0.003, 0.01, 0.03} and chosen < tuning and chosen != {0.03}


def test_parameters_of_a_team_are_those_of_its_members(undisturbed):
    import pandas as pd

    rows = pd.read_csv(undisturbed[0] / "rows.csv")
    one = rows.loc[rows["recipe"] == "member", "params"].unique()
    assert len(one) == 1
    assert (rows["params"] == rows["members"] * one[0]).all()


def test_a_second_start_trains_nothing(undisturbed):
    folder, verdicts = undisturbed
    before = promised(folder)
    stamps = {p: p.stat().st_mtime_ns for p in folder.glob("runs/*/result.json")}
    assert runner.run(SMALL, "smoke", folder, quiet=True) == verdicts
    assert promised(folder) == before
    assert {p: p.stat().st_mtime_ns for p in folder.glob("runs/*/result.json")} == stamps


@pytest.mark.full
@pytest.mark.parametrize("finished", [0, 1, 3, 5])
def test_killed_with_no_mercy_it_ends_with_the_same_bits(undisturbed, tmp_path, finished):
    """SIGKILL once `finished` runs are done and the next one logs; then the same command again."""
    folder, _ = undisturbed
    process = subprocess.Popen(command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        done, begun = len(list(tmp_path.glob("runs/*/result.json"))), len(list(tmp_path.glob("runs/*/trajectory/*.jsonl")))
        if done >= finished and begun > done:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "verdict.json").exists(), "killed too late to show anything"
    subprocess.run(command(tmp_path), check=True, stdout=subprocess.DEVNULL)
    assert promised(tmp_path) == promised(folder)


def test_the_plan_of_a_finished_study_is_empty(undisturbed):
    """The forecast goes where the losses on disk lead it, past its start."""
    folder, _ = undisturbed
    study, _ = runner.load(SMALL)
    planned = studies.forecast(study, study.at("smoke"), found=lambda identity: loop.result(folder, identity))
    asked = {unit.identity for group in planned.values() for unit in group}
    assert asked == {path.parent.name for path in folder.glob("runs/*/result.json")}
    blind = {unit.identity for group in studies.forecast(study, study.at("smoke")).values() for unit in group}
    assert blind != asked


def test_a_dry_run_prints_and_writes_nothing(tmp_path, capfd):
    assert runner.run(SMALL, "smoke", tmp_path / "new", dry_run=True) is None
    assert not (tmp_path / "new").exists()
    shown = capfd.readouterr().out
    assert "transformer 8 x 1" in shown and "expected" in shown and "nothing was trained" in shown


def test_until_stops_and_says_how_to_go_on(tmp_path, capfd):
    verdicts = runner.run(SMALL, "smoke", tmp_path, until="tune")
    assert {v.verdict for v in verdicts} == {"not testable"}
    last = capfd.readouterr().out.strip().splitlines()[-1]
    assert (
        last.startswith("next: ")
        and "scaling-jax study" in last
        and "--until" not in last
        and f"--workdir={tmp_path}" in last.replace("\n", "")
    )


def test_the_next_command_repeats_what_was_said():
    said = outcome.next_command("my/study.py", "tiny", "out", ALL, "tune", 2, {"model.layers": "3"})
    program, _, rest = said.partition(" ")
    assert rest == "study my/study.py --scale=tiny --workdir=out --ablate=2 --config.model.layers=3"
    assert program == "scaling-jax" or os.access(program, os.X_OK)
    assert outcome.next_command("x", "tiny", "out", ALL).endswith("study x --scale=small --workdir=out_small --dry-run")
    assert outcome.next_command("x", "tiny", "out", ("smoke", "tiny")) == "open out/report.html"
    assert outcome.next_command("x", "pod", "out", ALL) == "open out/report.html"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(name="infinite_comput"), ("infinite_comput", "did you mean 'infinite_compute'")),
        (dict(scale="tinny"), ("--scale=tinny", "did you mean 'tiny'")),
        (dict(until="ensemble"), ("--until=ensemble", "did you mean 'ensembles'")),
        (dict(ablate=99), ("--ablate=99", "1 to 8")),
        (dict(overrides={"model.widht": "3"}), ("model.widht", "did you mean 'width'")),
        (dict(overrides={"optimizer.weight_decay": "0.5"}), ("config.optimizer.weight_decay", "set it themselves")),
        (dict(overrides={"train.steps": "5"}), ("config.train.steps", "set it themselves")),
        (dict(overrides={"seed": "1"}), ("config.seed", "set it themselves")),
        (dict(name="nowhere/study.py"), ("nowhere/study.py", "no such file")),
    ],
)
def test_a_mistake_is_named_before_anything_runs(tmp_path, arguments, words):
    with pytest.raises(ConfigError) as caught:
        runner.run(**{"name": "infinite_compute", "scale": "smoke", "workdir": tmp_path / "w", "quiet": True, **arguments})
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_directory_belongs_to_one_study(undisturbed, dry_run):
    folder, _ = undisturbed
    with pytest.raises(ConfigError, match="another directory"):
        runner.run("infinite_compute", "smoke", folder, quiet=True, dry_run=dry_run)


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file/inside: cannot be written .*; choose a directory of yours"):
        runner.run(SMALL, "smoke", tmp_path / "file" / "inside", quiet=True)


def test_a_denser_log_is_no_other_study(undisturbed, tmp_path):
    shutil.copytree(undisturbed[0], tmp_path, dirs_exist_ok=True)
    runner.run(SMALL, "smoke", tmp_path, overrides={"train.log_every": "1"}, quiet=True)
    with pytest.raises(ConfigError, match="holds overrides = {}, not {'model.rope_theta'"):
        runner.run(SMALL, "smoke", tmp_path, overrides={"model.rope_theta": "100"}, quiet=True)


def test_the_cost_is_that_of_all_starts(undisturbed, tmp_path):
    shutil.copytree(undisturbed[0], tmp_path, dirs_exist_ok=True)
    runner.run(SMALL, "smoke", tmp_path, quiet=True)
    before, after = (json.loads((folder / "verdict.json").read_text())["provenance"] for folder in (undisturbed[0], tmp_path))
    assert before["training_seconds"] == after["training_seconds"] > after["last_start_wall_seconds"]


def test_two_figures_never_share_a_file():
    study, _ = runner.load(SMALL)
    with pytest.raises(ValueError, match=r"'Loss \(a\)' and 'Loss: a' would share the file loss-a.svg"):
        replace(study, figures=(figures.curves("Loss (a)", x="params"), figures.curves("Loss: a", x="params")))


def test_a_tuning_stage_cannot_see_test():
    study, _ = runner.load(SMALL)
    tune = replace(study.at("smoke"), split="tune")
    with pytest.raises(studies.SplitError, match="test split"):
        tune.on("test")
    with pytest.raises(studies.SplitError, match="seed 0"):
        tune.run({"seed": 0})
    with pytest.raises(studies.SplitError, match="seed 1000000"):
        study.at("smoke").run({"seed": studies.TUNING_SEED})
    seen = study.at("smoke").run({"seed": 0})
    tune.results[seen.identity] = {"test/loss": 1.0}
    with pytest.raises(studies.SplitError, match="tune/loss"):
        tune.loss(seen)


def test_planned_cohorts_keep_their_members():
    study, _ = runner.load(SMALL)
    runs = [study.at("smoke").run({"seed": seed}) for seed in range(5)]
    first = cohorts.group(runs[:3])
    again = cohorts.group(runs, [[u.identity for u in c.units] for c in first])
    assert [u.identity for u in again[0].units] == [u.identity for u in runs[:3]]
    assert sum(len(c.units) for c in again) == 5
    known = {u.identity: u for u in runs}
    rest = cohorts.group(runs[1:4], [[u.identity for u in runs[:3]], [u.identity for u in runs[1:3]]], known)
    assert sorted([len(c.units) for c in rest]) == [1, 3], "a finished member stays, and nothing is planned twice"


def test_a_cohort_of_which_a_member_is_finished_ends_the_same(undisturbed, tmp_path):
    """Killed between the results of its members."""
    shutil.copytree(undisturbed[0], tmp_path, dirs_exist_ok=True)
    plan = json.loads((tmp_path / "plan.json").read_text())
    last = plan["cohorts"][-1]["members"]
    assert len(last) == 3
    for lost in last[1:]:
        (tmp_path / "runs" / lost / "result.json").unlink()
    runner.run(SMALL, "smoke", tmp_path, quiet=True)
    assert promised(tmp_path) == promised(undisturbed[0])
    assert json.loads((tmp_path / "plan.json").read_text()) == plan


def test_diverged_runs_are_judged_not_fatal(tmp_path, capfd):
    verdicts = runner.run(SMALL, "smoke", tmp_path, overrides={"optimizer.weight_decay": "1e30"})
    assert {v.verdict for v in verdicts} == {"not testable"} and "nan" in verdicts[0].reason
    json.loads((tmp_path / "verdict.json").read_text(), parse_constant=pytest.fail)
    assert (tmp_path / "report.html").is_file() and "not testable" in capfd.readouterr().out


def test_teams_are_of_one_model():
    study, _ = runner.load(SMALL)
    runs = [study.at("smoke", overrides={"model.rope_theta": theta}).run({"seed": 0}) for theta in (100.0, 10_000.0)]
    with pytest.raises(ValueError, match="parents: their models differ"):
        units.score(units.EnsembleConfig(teams=((0, 1),)), runs)


def test_tokens_are_the_unique_ones():
    study, _ = runner.load(SMALL)
    row = lambda **leaves: studies.run_columns(study.at("smoke", overrides=leaves).run({"seed": 0}).config)
    assert (row()["tokens"], row()["tokens_seen"]) == (256, 60 * 4 * 8)
    assert row(**{"data.unique_tokens": 3000})["tokens"] == 60 * 4 * 8, "no more than were seen"
    assert row(**{"data.unique_tokens": None, "train.steps": 300})["tokens"] == 3992, "the whole split, in whole windows"


def test_exit_codes(tmp_path):
    run = lambda *args: subprocess.run([sys.executable, "-m", "scaling_jax.cli", *args], capture_output=True, text=True, env=os.environ)
    wrong = run("study", "infinite_compute", "--scale=huge", f"--workdir={tmp_path}/w")
    assert wrong.returncode == 2 and wrong.stderr.startswith("scaling-jax: --scale=huge") and "Traceback" not in wrong.stderr
    wrong = run("train", "--config=tiny", "--config.model.width=33", f"--workdir={tmp_path}/w")
    assert wrong.returncode == 2 and "model.width = 33" in wrong.stderr and "Traceback" not in wrong.stderr
    assert not (tmp_path / "w").exists()


def test_a_grid_is_every_combination_with_every_seed():
    stage = studies.grid({"model.width": [8, 16], "optimizer.weight_decay": [0.1, 0.2]}, seeds=3, recipe="grid")
    units = stage.expand(runner.load(SMALL)[0].at("smoke"))
    assert len(units) == len({u.identity for u in units}) == 12
    assert len({u.cell for u in units}) == 4, "runs of a cell differ in nothing but the seed"
    assert {u.label["recipe"] for u in units} == {"grid"}
