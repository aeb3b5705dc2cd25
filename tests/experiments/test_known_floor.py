"""The known floor: its floors against the sources' closed forms, its learning rates, and its claims in worlds where we put the floor."""

import functools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

from scaling_jax import config as cfg
from scaling_jax import laws
from scaling_jax.data import stream, synthetic
from scaling_jax.data.corpus import open_corpus
from scaling_jax.laws import forms
from scaling_jax.laws.form import NotTestable
from scaling_jax.studies import runner, worlds
from scaling_jax.studies import study as studies
from scaling_jax.studies.rows import Data
from tests.studies.test_contract import planned, stand_in

PATH = Path(__file__).resolve().parents[2] / "experiments" / "statistics" / "known_floor" / "study.py"
DATA_LAW, JOINT_LAW, BELOW, NO_FLOOR, TOO_HIGH = range(5)


@pytest.fixture(scope="module")
def module():
    return cfg.import_file(PATH)


@functools.cache
def study():
    return runner.load("known_floor")[0]


def truth(run):
    """The floor of a run's text, and its parameters and tokens."""
    found = cfg.import_file(PATH).stages.floor(run.data, run.data.synthetic.zipf)[0]
    params = cfg.component(run.model.name, cfg.MODELS).parameters(run.model).total
    return found, params, run.train.steps * run.data.batch * run.data.sequence


def additive(run, floor=1.0):
    """The law, its floor in units of the true one; what is left above it is as large as `tiny` gives."""
    true, params, tokens = truth(run)
    return floor * true + 60.0 / params + 6000.0 / tokens


def planted(loss, only=range(5), noise=0.001, permutations=200, seed=0):
    """The verdicts of tiny on `only` these claims where the loss of a run is `loss(run)`."""
    asked = replace(study(), claims=tuple(study().claims[i] for i in only))
    return worlds.live(asked, "tiny", worlds.World(loss, noise=noise), seed, permutations=permutations)


def test_no_text_is_read_twice_at_tiny():
    for unit in planned(PATH, "tiny"):
        seen = unit.config.train.steps * unit.config.data.batch * unit.config.data.sequence
        assert seen < len(open_corpus(unit.config.data).splits["train"])


def test_small_reads_no_text_twice_either():
    for unit in study().at("small")["steps"][-1:]:
        base = study().at("small").base
        assert unit * base.data.batch * base.data.sequence < base.data.synthetic.tokens


def test_the_floor_is_close_to_the_entropy_rate_and_below_what_a_wrong_generator_gets(module):
    """On the chains' test windows, past the symbols whose context is cut off: within four standard errors of H; a sharper Zipf law is above."""
    seen = {unit.label["source"]: unit.config.data for unit in planned(PATH, "tiny")}
    for source, order in (("order 1", 1), ("order 2", 2)):
        data, zipf = seen[source], seen[source].synthetic.zipf
        known, rate = module.stages.floor(data, zipf)
        losses = synthetic.predictive_loss(data, stream.evaluation(open_corpus(data), data, "test"))
        assert known == pytest.approx(losses.mean(), rel=1e-12) and rate == pytest.approx(synthetic.entropy_rate(data), rel=1e-12)
        full = losses[:, order - 1 :]
        assert abs(full.mean() - rate) < 4 * full.std() / math.sqrt(full.size)
        assert module.stages.floor(data, 1.2 * zipf)[0] > known
    known, rate = module.stages.floor(seen["hidden"], 1.5)
    assert math.isnan(rate) and known < np.log(32)


def test_the_unigram_loss_lies_above_every_floor(module):
    """Counts of single symbols are a model too, of the train split alone: it loses more than the generator."""
    for data in {unit.label["source"]: unit.config.data for unit in planned(PATH, "tiny")}.values():
        splits = open_corpus(data).splits
        counts = np.bincount(splits["train"], minlength=data.vocab) / len(splits["train"])
        loss = -np.log(counts)[splits["test"]].mean()
        assert loss > module.stages.floor(data, data.synthetic.zipf)[0]


def test_a_text_of_unknown_entropy_makes_claims_untestable(module):
    """A source given on the command line replaces ours; its floor is not made up."""
    data = replace(study().at("tiny").base.data, source="tests.studies.test_contract:stand_in")
    assert all(math.isnan(one) for one in module.stages.floor(data, 1.0)) and stand_in(data).entropy_rate is None
    frame = pd.DataFrame({"stage": ["data"], "source": ["order 1"], "floor": [math.nan], "runs": [("a",)]})
    with pytest.raises(NotTestable, match="not known"):
        module.statistics.true(Data(frame, {"a": "cell"}), "order 1")
    with pytest.raises(NotTestable, match="no text hidden"):
        module.statistics.points(Data(frame, {"a": "cell"}), "hidden")


def test_the_learning_rate_is_the_planted_optimum_and_lies_between_the_tuned_ones():
    best = lambda run: 0.02 if run.train.steps < 128 else 0.005
    world = worlds.World(lambda run: 2 + 0.1 * math.log(run.optimizer.learning_rate / best(run)) ** 2, noise=0.0)
    state = replace(study().at("tiny"), results={})

    def execute(stage, known, missing):
        state.results.update({unit.identity: worlds._train(world, unit, 0) for unit in missing})

    done = studies.walk(study(), state, execute)
    rates = {unit.config.train.steps: unit.config.optimizer.learning_rate for unit in done["data"]}
    assert rates[64] == pytest.approx(0.02) and rates[512] == rates[1024] == pytest.approx(0.005)
    assert list(rates.values()) == sorted(rates.values(), reverse=True)
    assert not any(unit.label["edge"] for unit in done["data"])


def test_ablations():
    """All numbers of tokens are trained alike, in runs of their own; the text is another one than the one whose entropy is told."""
    done = studies.forecast(study(), study().at("tiny", {"same_tokens": True}))
    units = [unit for stage in ("data", "sizes") for unit in done[stage]]
    assert {unit.config.train.steps for unit in units} == {64} and len({unit.label["budget"] for unit in units}) == 9
    assert len({unit.identity for unit in units}) == len(units)
    done = studies.forecast(study(), study().at("tiny", {"foreign": 0.2}))
    assert all(unit.config.data.synthetic.zipf == pytest.approx(1.2 * unit.label["told"]) for unit in done["data"])


# --- statistics --------------------------------------------------------------------------------------------------------------


def world_rows(module, loss, noise=0.0, seed=0):
    """Rows of tiny in a planted world."""
    world, state = worlds.World(loss, noise=noise), replace(study().at("tiny"), results={})

    def execute(stage, known, missing):
        state.results.update({unit.identity: worlds._train(world, unit, seed) for unit in missing})

    return Data(*studies.rows(study(), state, studies.walk(study(), state, execute)))


def test_what_is_fitted_is_what_was_planted(module):
    data, found = world_rows(module, additive), module.statistics
    own = next(unit.config for unit in planned(PATH, "tiny") if unit.label["source"] == "hidden")
    true, params, _ = truth(own)
    assert found.gap("hidden")(data) == pytest.approx(100 * 60 / params / true, rel=1e-3)
    assert found.signed_joint_gap(data) == pytest.approx(0, abs=1e-3)
    assert found.error()(data) == pytest.approx(0, abs=1e-6) and found.error(0.0)(data) > 0.1
    sizes_only = world_rows(module, lambda run: truth(run)[0] + 60.0 / truth(run)[1])
    assert found.size_steepening(sizes_only) == pytest.approx(0, abs=1e-9)
    sharper = world_rows(module, lambda run: additive(run, 0.9))
    assert found.signed_joint_gap(sharper) == pytest.approx(-10, abs=1e-3) and found.smallest_excess(sharper) < 0


def test_the_law_in_data_is_the_least_squares_of_scipy(module):
    rng = np.random.default_rng(0)
    tokens = 512.0 * np.array([64, 96, 128, 192, 256, 384, 512, 768, 1024])
    loss, weights = 2.76 + 6000 / tokens + 0.002 * rng.standard_normal(9), tokens / tokens.mean()
    law = module.statistics.fitted(tokens, loss, weights)
    shape = lambda d, e, b, beta: e + b * (d / 1e5) ** -beta
    theirs, _ = optimize.curve_fit(shape, tokens, loss, p0=(2.7, 0.06, 1.0), sigma=weights**-0.5)
    assert law["E"] == pytest.approx(theirs[0], rel=1e-5) and law["beta"] == pytest.approx(theirs[2], rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_few_starts_find_the_minimum_that_all_find(module, seed):
    rng = np.random.default_rng(seed)
    params, tokens = (x.ravel() for x in np.meshgrid([524.0, 1368, 4400, 14688], 512.0 * np.array([64, 128, 256, 512, 1024])))
    loss = 2.7 + 20 / params**0.65 + 9000 / tokens + 0.02 * rng.standard_normal(params.size)
    at = {"params": params, "tokens": tokens, "loss": loss}
    few, many = (laws.fit(form, at, loss="log") for form in (module.statistics.JOINT, forms.chinchilla))
    assert few.objective <= many.objective * (1 + 1e-6)


def test_intervals_cover_a_planted_floor_as_often_as_they_say(module):
    """Where the law is exact and noise normal, 95% of single seeds cover: of 40, at least 34 with probability 0.997."""
    rng, tokens = np.random.default_rng(1), 512 * np.array([64, 96, 128, 192, 256, 384, 512, 768, 1024])
    rows = [
        {"stage": "data", "source": "order 1", "tokens": d, "loss": 2.0 + 6000 / d + 0.002 * rng.standard_normal(), "floor": 2.0, "seed": s}
        for s in range(40)
        for d in tokens
    ]
    ((source, value, low, high, known, covered, seeds),) = module.statistics.intervals_of_floors(pd.DataFrame(rows))
    assert (source, known, seeds) == ("order 1", 2.0, 40) and low < value < high and 34 <= covered


def test_weights_are_the_inverse_variances_that_were_planted(module):
    rng, tokens = np.random.default_rng(2), np.repeat(512.0 * 2 ** np.arange(8), 400)
    at, means, weights = module.statistics.summary(tokens, 2 + 1e3 / tokens * (1 + 0.2 * rng.standard_normal(tokens.size)))
    np.testing.assert_allclose(weights / weights[0], (at / at[0]) ** 2, rtol=0.3)
    np.testing.assert_array_equal(module.statistics.summary(at, means)[2], 1.0)


def test_mirroring_turns_whole_distances(module):
    frame = pd.DataFrame({"excess": np.arange(1.0, 9.0), "runs": [(str(i),) for i in range(8)]})
    data = Data(frame, dict.fromkeys(map(str, range(8)), "cell"))
    exchange = module.statistics.Mirrored()
    moved = exchange(data, np.random.default_rng(0))["excess"]
    assert exchange.arrangements(data) == 256
    np.testing.assert_array_equal(np.abs(moved), frame["excess"])
    assert 0 < (moved < 0).sum() < 8


# --- the claims in worlds of our own -----------------------------------------------------------------------------------------


@pytest.mark.full
def test_where_the_law_is_true_its_claims_hold():
    assert [v.verdict for v in planted(additive, permutations=100)] == ["holds"] * 5


@pytest.mark.full
def test_a_floor_planted_too_high_is_not_found():
    """5% too high: neither law ends at the entropy; a floor 2% too high then predicts better than the true one."""
    verdicts = planted(lambda run: additive(run, 1.05), permutations=30)
    assert [verdicts[i].verdict for i in (DATA_LAW, JOINT_LAW, TOO_HIGH)] == ["fails"] * 3


@pytest.mark.full
def test_models_below_the_floor_are_seen():
    """3% too low: as if the entropy formula were wrong, or the test text had leaked."""
    verdicts = planted(lambda run: additive(run, 0.97), only=(DATA_LAW, BELOW), permutations=30)
    assert [v.verdict for v in verdicts] == ["fails"] * 2


@pytest.mark.full
def test_a_world_without_a_floor_rejects_no_law_without_one():
    def floorless(run):
        true, _, tokens = truth(run)
        return 1.07 * true * (tokens / 32768) ** -0.02

    assert planted(floorless, only=(NO_FLOOR,), permutations=100)[0].verdict != "holds"


@pytest.mark.full
def test_where_nothing_depends_on_size_or_data_no_floor_is_found():
    verdicts = planted(lambda run: 1.07 * truth(run)[0], only=(DATA_LAW, NO_FLOOR, TOO_HIGH), permutations=60)
    assert "holds" not in [v.verdict for v in verdicts]
