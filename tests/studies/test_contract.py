"""The contract every study keeps, whoever writes it: found by itself, one test per promise and study."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from scaling_jax import config as cfg
from scaling_jax.data.corpus import Corpus
from scaling_jax.records import ConfigError
from scaling_jax.studies import runner
from scaling_jax.studies import study as studies
from scaling_jax.studies.report_verdicts import SIGNS
from scaling_jax.train import state, step

ROOT = Path(__file__).resolve().parents[2]
FILES = [p for p in sorted((ROOT / "experiments").rglob("*.py")) if "STUDY = " in p.read_text()]
SCALES = ("smoke", "tiny", "small", "pod")
STAND_IN = {"data.source": "tests.studies.test_contract:stand_in"}

each_study = pytest.mark.parametrize("path", FILES, ids=lambda p: p.parent.name if p.name == "study.py" else p.stem)


def stand_in(data):
    """A corpus as large as any study wants, in no memory: what `pod` is planned on where its tokens are not at hand."""
    zeros = np.broadcast_to(np.zeros((), np.int32), (2**31,))
    return Corpus(
        "stand-in", data.vocab, dict.fromkeys(("train", "tune", "test"), zeros), dict.fromkeys(("train", "tune", "test")), "0" * 16
    )


@functools.cache
def planned(path, scale):
    """Every unit `scale` asks for, if nothing beats its start."""
    study, _ = runner.load(str(path))
    at = study.at(scale, overrides=STAND_IN if scale == "pod" and study.base else {})
    return [unit for group in studies.forecast(study, at).values() for unit in group]


def test_there_is_a_study():
    assert FILES


@each_study
def test_importing_touches_no_device(path):
    code = f"from scaling_jax import config; config.import_file({str(path)!r})\nfrom jax._src import xla_bridge\nassert not xla_bridge._backends, xla_bridge._backends"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@each_study
def test_it_names_its_paper_or_says_it_has_none_and_its_question(path):
    study, _ = runner.load(str(path))
    assert study.paper is None or re.fullmatch(r"\d{4}\.\d{4,5}", study.paper)
    assert study.title and study.question.endswith("?")
    assert set(SCALES) <= set(study.scales)


@each_study
def test_it_makes_three_claims_or_more_that_can_lose(path):
    study, _ = runner.load(str(path))
    assert len(study.claims) >= 3
    assert len({c.text for c in study.claims}) == len(study.claims)
    for claim in study.claims:
        assert hasattr(claim.exchange, "arrangements"), f"{claim.text}: its exchange cannot count its relabelings"
        plain, ablated = study.at("smoke"), study.at("smoke", claim.ablation)
        assert (plain.base, plain.settings) != (ablated.base, ablated.settings), f"{claim.text}: its ablation changes nothing"


@each_study
@pytest.mark.parametrize("scale", SCALES[:-1])
def test_every_ablation_can_be_planned(path, scale):
    study, _ = runner.load(str(path))
    for claim in study.claims:
        units = [unit for group in studies.forecast(study, study.at(scale, claim.ablation)).values() for unit in group]
        assert {u.identity for u in units} != {u.identity for u in planned(path, scale)}, f"{claim.text}: its ablation changes no unit"


@each_study
@pytest.mark.parametrize("scale", SCALES)
def test_every_program_lowers(path, scale):
    programs = {state.static(unit.config): unit.config for unit in planned(path, scale) if unit.kind == "train"}
    assert planned(path, scale) and bool(programs) == (runner.load(str(path))[0].base is not None), "a base config is for what is trained"
    for static, run in programs.items():
        hyper = state.hyper(run)
        before = jax.eval_shape(lambda h, static=static: state.start(static, h), hyper)
        batch = jax.ShapeDtypeStruct((run.data.batch, run.data.sequence + 1), np.int32)
        lowered = jax.jit(functools.partial(step.train_step, static)).lower(before, batch, hyper)
        assert lowered.cost_analysis() is not None


@each_study
def test_tuning_and_claims_share_no_run(path):
    study, _ = runner.load(str(path))
    done = studies.forecast(study, study.at("tiny"))
    tuning = {s.name for s in study.stages if s.split == "tune"}
    units = {side: [u for name, group in done.items() if (name in tuning) == side for u in group] for side in (True, False)}
    seeds = {side: {u.config.seed for u in group if u.kind in ("train", "simulate")} for side, group in units.items()}
    splits = {side: {u.config.train.evaluate for u in group if u.kind == "train"} for side, group in units.items()}
    assert seeds[False] and not seeds[True] & seeds[False]
    assert all(seed >= studies.TUNING_SEED for seed in seeds[True]) and all(seed < studies.TUNING_SEED for seed in seeds[False])
    assert splits[True] <= {("tune",)} and splits[False] == ({("test",)} if study.base else set())


@each_study
def test_pod_without_its_data_says_so(path):
    study, _ = runner.load(str(path))
    if study.base and study.at("pod").base.data.source == "file":
        with pytest.raises(ConfigError, match=r"config\.data\.path"):
            studies.forecast(study, study.at("pod"))


@pytest.mark.full
@each_study
def test_smoke_judges_every_claim(path, tmp_path, record_property):
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "scaling_jax.cli", "study", str(path), "--scale=smoke", f"--workdir={tmp_path}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    after = os.times()
    assert done.returncode == 0, done.stderr
    judged = json.loads((tmp_path / "verdict.json").read_text())["claims"]
    assert [one["claim"] for one in judged] == [claim.text for claim in runner.load(str(path))[0].claims]
    assert all(one["verdict"] in SIGNS and one["reason"] for one in judged) and (tmp_path / "report.html").is_file()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    record_property("cpu_seconds", f"{path.parent.name if path.stem == 'study' else path.stem} {spent:.1f}")  # the summary prints it


@each_study
def test_published_figures_name_their_source(path):
    for table in (ROOT / "experiments" / "published").glob("*.csv"):
        assert table.read_text().startswith("# source:"), table


def parameters(run):
    return cfg.component(run.model.name, cfg.MODELS).parameters(run.model).total
