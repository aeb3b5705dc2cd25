"""Pre-training under infinite compute: the paper's sizes and points, its published limits, and the statistics of its claims."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling_jax import config as cfg
from scaling_jax.laws import fitting, forms, record
from scaling_jax.laws.form import NotTestable
from scaling_jax.studies import claims, outcome, runner, worlds
from scaling_jax.studies.rows import Data
from tests.studies.test_contract import STAND_IN, parameters, planned

PATH = Path(__file__).resolve().parents[2] / "experiments" / "pretraining" / "infinite_compute" / "study.py"
PAPER = {"150M": 150e6, "300M": 300e6, "600M": 600e6, "1.4B": 1.4e9}


@pytest.fixture(scope="module")
def module():
    return cfg.import_file(PATH).statistics


def module_study():
    return runner.load("infinite_compute")[0]


def test_pod_has_the_papers_sizes_and_points():
    runs = {
        unit.label["size"]: unit.config for unit in planned(PATH, "pod") if unit.kind == "train" and unit.label["recipe"] == "regularized"
    }
    assert set(runs) == set(PAPER)
    for size, run in runs.items():
        assert float(f"{parameters(run):.2g}") == PAPER[size], "to the two digits the paper prints"
        assert run.data.batch * run.data.sequence == 262_144
    largest = runs["1.4B"]
    assert (largest.optimizer.weight_decay, largest.optimizer.learning_rate, largest.train.steps) == (3.2, 1e-3, 8 * 800)


def test_the_published_limits_refit():
    path = PATH.parents[2] / "published" / "infinite_compute_asymptotes.csv"
    with open(path, encoding="utf-8") as file:
        frame = pd.DataFrame(csv.DictReader(line for line in file if not line.startswith("#"))).astype(float)
    found = {tokens: fitting.fit(forms.power, part)["E"] for tokens, part in frame.groupby("tokens")}
    assert [round(found[t], 3) for t in sorted(found)] == [3.169, 2.980, 2.789, 2.657]


def test_swapping_slots_swaps_whole_members(module):
    """In all teams at once: a swapped statistic is that of renamed members, and swapping everything turns its sign."""
    rows = []
    rng = np.random.default_rng(0)
    for team in cfg.import_file(PATH).stages.cyclic(8):
        for mix in range(16):
            heavy = sum(1 << slot for i, slot in enumerate(team) if mix >> i & 1)
            rows.append(
                dict(
                    stage="ensembles",
                    average="as claimed",
                    members=4,
                    slots=sum(1 << i for i in team),
                    heavy=heavy,
                    loss=rng.normal(),
                    runs=("r",),
                )
            )
    data = Data(pd.DataFrame(rows), {"r": "c"})
    everything = data.replace("heavy", data["heavy"] ^ data["slots"])
    assert module.heavy_together(everything) == pytest.approx(-module.heavy_together(data))
    assert module.SwapMembers().arrangements(data) == 256
    assert all(sum(slot in team for team in cfg.import_file(PATH).stages.cyclic(8)) == 4 for slot in range(8))


def test_a_smaller_size_is_chosen_on_tune_not_on_test(module):
    rows = [
        dict(stage="sizes", recipe="standard", params=p, tune_loss=t, loss=l, runs=(f"{p}{i}",))
        for p, t, l in ((1, 2.0, 9.0), (2, 3.0, 1.0), (3, 5.0, 4.0))
        for i in range(2)
    ]
    data = Data(pd.DataFrame(rows), {row["runs"][0]: str(row["params"]) for row in rows})
    assert module.bigger_is_worse(data) == 4.0 - 9.0, "size 1 is best on tune, although size 2 is best on test"
    with pytest.raises(NotTestable, match="two"):
        module.bigger_is_worse(data.where(params=3))


def test_only_the_two_cells_chosen_on_tune_are_exchanged(module):
    rows = [
        dict(stage="sizes", recipe="standard", params=p, tune_loss=t, loss=10.0 * p + s, runs=(f"{p}{s}",))
        for p, t in ((1, 2.0), (2, 3.0), (3, 5.0))
        for s in range(5)
    ]
    data = Data(pd.DataFrame(rows), {row["runs"][0]: str(row["params"]) for row in rows})
    exchange = module.exchanged_sizes("standard")
    assert exchange.arrangements(data) == 252
    moved = exchange(data, np.random.default_rng(0))
    loss = moved["loss"]
    np.testing.assert_array_equal(loss[5:10], data["loss"][5:10])  # size 2 is no part of the comparison
    assert sorted([*loss[:5], *loss[10:]]) == sorted([*data["loss"][:5], *data["loss"][10:]])
    assert loss[:5].tolist() != data["loss"][:5].tolist() and module.compared(moved, "standard") == (1, 3)


def test_the_strong_decay_is_the_one_nearest_to_the_tuned(module):
    rows = [
        dict(recipe="decay sweep", params=p, weight_decay=d, tuned_decay=0.2 if p == 2 else 6.4, loss=l, runs=(f"{p}{d}{s}",))
        for p in (1, 2)
        for d, l in ((0.1, 3.0), (0.4, 2.5), (0.8, 2.0), (1.6, 1.0))
        for s in range(2)
    ]
    data = Data(pd.DataFrame(rows), {row["runs"][0]: f"{row['params']} {row['weight_decay']}" for row in rows})
    assert module.strong_decay_gain(data) == 2.5 - 2.0, "0.8 is nearest to 0.2 among the strong, although 1.6 is better on test"
    assert module.EXCHANGED_DECAYS.arrangements(data) == len(list(module.EXCHANGED_DECAYS.every(data))) == 6
    with pytest.raises(NotTestable, match="no value on one side of 0.4"):
        module.strong_decay_gain(data.where(weight_decay=[0.1, 0.4]))


def test_a_weak_decay_as_good_as_the_strong_one_is_noticed(module):
    """The best weak decay is the lowest, not the highest; and 0.8 beyond it is no better."""
    rng, small = np.random.default_rng(0), 0
    claim = next(c for c in module_study().claims if c.exchange is module.EXCHANGED_DECAYS)
    for _ in range(40):
        rows = [
            dict(recipe="decay sweep", params=1, weight_decay=d, tuned_decay=1.6, loss=l + rng.normal(0, 0.02), runs=(f"{d}{s}",))
            for d, l in ((0.1, 2.0), (0.4, 2.3), (0.8, 2.2), (1.6, 2.0), (3.2, 2.3))
            for s in range(5)
        ]
        data = Data(pd.DataFrame(rows), {row["runs"][0]: str(row["weight_decay"]) for row in rows})
        small += claims.judge([claim], data)[0].null_p < 0.05
    assert small <= 6, "5% of 40 worlds, at most 6 with probability 0.99"


def test_a_null_world_is_not_believed():
    """A short form of benchmarks/error_rates.py, tuning included: of 12 worlds with nothing in them, `holds` in at most two of 96 verdicts."""
    study, _ = runner.load("infinite_compute")
    world = worlds.World(lambda run: 2.2)
    verdicts = [v.verdict for seed in range(12) for v in worlds.live(study, "tiny", world, seed, until="ensembles", permutations=200)]
    assert len(verdicts) == 96
    assert verdicts.count("holds") <= 2


def test_what_the_joint_stage_trains_changes_no_claim_on_one_size():
    """Where tuned members win the contest the joint stage trains tuned members of every size; larger ones are better here."""
    study, _ = runner.load("infinite_compute")
    loss = lambda run: 2.2 - 0.001 * run.model.width + 0.02 * (run.train.steps >= 768 and run.optimizer.weight_decay < 0.5)
    world = worlds.World(loss, noise=0.004)
    half, whole = ({v.claim: v for v in worlds.live(study, "tiny", world, 0, until=stage)} for stage in ("ensembles", None))
    text = next(c.text for c in study.claims if c.statistic.__name__ == "heavy_alone")
    assert half[text].value == whole[text].value and half[text].n == whole[text].n == 16


def test_pod_judges_every_claim():
    """At the paper's points nothing was tuned; a world stands in for the pod."""
    study, _ = runner.load("infinite_compute")
    law = lambda run: 3.0 + 50 / parameters(run) ** 0.3 + 0.6 * (run.data.unique_tokens / 2e8) ** -0.5
    world = worlds.World(law, lambda losses, runs: losses.mean() - 0.2 * (1 - 1 / len(losses)), noise=0.002)
    verdicts = worlds.live(study, "pod", world, 0, permutations=200, overrides=STAND_IN)
    assert all(v.value is not None for v in verdicts), [v.reason for v in verdicts if v.value is None]
    assert verdicts[2].ci95[0] > 0, "the largest model is the best in this world"


def test_a_planted_effect_is_found():
    """Teams that gain 0.3 nats where seeds differ by 0.01."""
    study, _ = runner.load("infinite_compute")
    world = worlds.World(lambda run: 2.2, lambda losses, runs: losses.mean() - 0.3 * (1 - 1 / len(losses)), noise=0.01)
    verdict = {v.claim: v.verdict for v in worlds.live(study, "tiny", world, 0, until="ensembles")}
    assert verdict["a team of small models beats one large model of as many parameters"] == "holds"


def test_its_laws_reach_fit_json():
    """Rows of five sizes with four seeds each: the entry reads back as the fit, with an interval of every parameter."""
    rng = np.random.default_rng(0)
    rows = [
        dict(
            stage="sizes",
            recipe="regularized",
            average="as claimed",
            params=n,
            members=1,
            loss=2 + 30 * n**-0.4 + 0.01 * rng.normal(),
            runs=(f"{n}.{s}",),
        )
        for n in (6_000, 12_000, 24_000, 48_000, 80_000)
        for s in range(4)
    ]
    data = Data(pd.DataFrame(rows), {row["runs"][0]: str(row["params"]) for row in rows})
    entry = outcome.fit_laws(module_study(), data)[0]
    again = record.from_json(entry)
    assert again.params == fitting.fit(forms.power, data.by("params")).params
    assert all(ends is not None and ends[0] < again[name] < ends[1] for name, ends in entry["ci95"].items())
