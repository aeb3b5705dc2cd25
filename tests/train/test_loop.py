"""The training loop: golden metrics, resume to the bit, members equal to lone runs."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest

from scaling_jax import config as cfg
from scaling_jax.data.corpus import open_corpus
from scaling_jax.models import transformer
from scaling_jax.records import DamageError
from scaling_jax.train import checkpoint, loop, objectives, state, step, trajectory
from scaling_jax.train.progress import Progress, sparkline
from tests.chaos.damage import Killer, Stop

TINY = {
    "model": {"name": "transformer", "width": 8, "layers": 1, "heads": 2},
    "data": {
        "source": "markov",
        "vocab": 16,
        "sequence": 8,
        "batch": 4,
        "unique_tokens": 256,
        "eval_sequences": 16,
        "synthetic": {"tokens": 4000, "held_out": 1000},
    },
    "optimizer": {"name": "adamw", "learning_rate": 0.02, "weight_decay": 0.1},
    "schedule": {"name": "cosine", "warmup": 0.1},
    "train": {"steps": 24, "log_every": 4, "checkpoint_every": 8, "evaluate": ("tune", "test")},
    "seed": 3,
}


def bound(**leaves):
    run = cfg.resolve(TINY, leaves)
    corpus = open_corpus(run.data)
    return cfg.bind(run, corpus), corpus


def files(folder):
    """Every promised file of a workdir: name -> bytes; timings and live state promise nothing."""
    kept = [
        p
        for p in sorted(folder.rglob("*"))
        if p.is_file() and "timings" not in p.name and "params" not in p.parts and "checkpoints" not in p.parts
    ]
    return {str(p.relative_to(folder)): p.read_bytes() for p in kept}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run, corpus = bound()
    folder = tmp_path_factory.mktemp("whole")
    return folder, loop.train([run], corpus, folder, Progress(quiet=True)), cfg.identity(run, corpus)


def test_it_learns_and_says_so_in_its_files(whole):
    folder, results, identity = whole
    metrics = results[identity]
    assert loop.result(folder, identity) == metrics
    frame = trajectory.read(folder / "runs" / identity)
    assert frame["step"].tolist() == [4, 8, 12, 16, 20, 24]
    assert frame["train/loss"].iloc[0] > frame["train/loss"].iloc[-1]
    assert frame["test/loss"].notna().sum() == 1, "evaluated at the end only"
    assert frame["epoch"].iloc[-1] == pytest.approx(24 * 4 / 32)
    assert metrics["train/loss"] < np.log(16) < metrics["test/loss"] + 1, "learns its few windows; nats per token"


@pytest.mark.parametrize("at", [4, 8, 12, 20])
def test_killed_anywhere_it_resumes_to_the_same_bits(whole, tmp_path, at):
    folder, results, identity = whole
    run, corpus = bound()
    with pytest.raises(Stop):
        loop.train([run], corpus, tmp_path, Killer(at))
    assert loop.result(tmp_path, identity) is None
    assert loop.train([run], corpus, tmp_path, Progress(quiet=True)) == results
    assert files(tmp_path) == files(folder)
    a, b = (checkpoint.load_params(f / "runs" / identity / "params") for f in (folder, tmp_path))
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_evaluations_along_the_way_are_part_of_the_result(whole, tmp_path):
    """Those of before a kill too; the last is the run's own, and asking for them changes nothing else."""
    _, results, identity = whole
    run, corpus = bound(**{"train.evaluate_every": 10})
    assert cfg.identity(run, corpus) == identity, "when a run is evaluated is recorded, not hashed"
    with pytest.raises(Stop):
        loop.train([run], corpus, tmp_path, Killer(20))
    metrics = dict(loop.train([run], corpus, tmp_path, Progress(quiet=True))[identity])
    assert loop.result(tmp_path, identity) == metrics
    along = metrics.pop("evaluations")
    assert metrics == results[identity] and along["step"] == [10, 20, 24]
    assert [along[f"{split}/loss"][-1] for split in ("tune", "test")] == [metrics[f"{split}/loss"] for split in ("tune", "test")]
    assert along["test/loss"][0] > along["test/loss"][-1] and len(along["tune/loss"]) == 3


def test_a_member_of_a_cohort_is_a_lone_run_to_the_bit(whole, tmp_path):
    _, results, identity = whole
    leaves = [{}, {"seed": 4, "optimizer.learning_rate": 0.01}, {"data.unique_tokens": 128}]
    runs = [bound(**{"train.members": "loop", **leaf})[0] for leaf in leaves]
    corpus = bound()[1]
    found = loop.train(runs, corpus, tmp_path, Progress(quiet=True))
    assert found[identity] == results[identity]
    assert len({m["test/loss"] for m in found.values()}) == 3


@pytest.mark.parametrize("how", ["map", "vmap"])
def test_stacked_members_agree_to_rounding(whole, tmp_path, how):
    _, results, identity = whole
    runs = [bound(**{"train.members": how, "seed": seed})[0] for seed in (3, 4)]
    found = loop.train(runs, bound()[1], tmp_path, Progress(quiet=True))
    assert found[identity]["test/loss"] == pytest.approx(results[identity]["test/loss"], rel=1e-4)


@pytest.mark.parametrize("how", ["loop", "map"])
def test_without_a_split_nothing_is_evaluated(tmp_path, how):
    runs = [bound(**{"train.members": how, "train.evaluate": (), "train.steps": 4, "seed": seed})[0] for seed in (3, 4)]
    found = loop.train(runs, bound()[1], tmp_path, Progress(quiet=True))
    assert all("train/loss" in metrics and "test/loss" not in metrics for metrics in found.values())


def test_a_run_that_diverges_is_a_result(tmp_path):
    """Beside one that does not: both are recorded, and read back as they were."""
    leaves = [{}, {"optimizer.learning_rate": 1e30}]
    runs = [bound(**{"train.clip_norm": None, "train.steps": 8, **leaf})[0] for leaf in leaves]
    corpus = bound()[1]
    found = loop.train(runs, corpus, tmp_path, Progress(quiet=True))
    well, ill = (found[cfg.identity(run, corpus)] for run in runs)
    assert np.isfinite(list(well.values())).all() and np.isnan(ill["test/loss"])
    for run in runs:
        identity = cfg.identity(run, corpus)
        np.testing.assert_equal(loop.result(tmp_path, identity), found[identity])
        json.loads((tmp_path / "runs" / identity / "result.json").read_text(), parse_constant=pytest.fail)


def test_a_cohort_resumes_as_well(tmp_path):
    runs, corpus = [bound(seed=seed)[0] for seed in (3, 4)], bound()[1]
    expected = loop.train(runs, corpus, tmp_path / "a", Progress(quiet=True))
    with pytest.raises(Stop):
        loop.train(runs, corpus, tmp_path / "b", Killer(16))
    assert loop.train(runs, corpus, tmp_path / "b", Progress(quiet=True)) == expected
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_one_step_is_the_textbook_step():
    """Gradient by a plain function of the model, clipping and AdamW by stock optax."""
    run, corpus = bound(**{"train.clip_norm": 0.5})
    static, hyper = state.static(run), state.hyper(run)
    before = state.start(static, hyper)
    batch = np.asarray(corpus.splits["train"][: 4 * 9]).reshape(4, 9).astype(np.int32)
    after, metrics = step.train_step(static, before, batch, hyper)

    def loss(params):
        logits, _ = transformer.apply(run.model, params, batch[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:]).mean()

    value, gradient = jax.value_and_grad(loss)(before.params)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-6)
    assert float(metrics["grad_norm"]) == pytest.approx(float(optax.tree.norm(gradient)), rel=1e-5)
    rate = float(metrics["learning_rate"])
    stock = optax.chain(
        optax.clip_by_global_norm(0.5), optax.adam(rate, b1=run.optimizer.b1, b2=run.optimizer.b2, eps=run.optimizer.epsilon)
    )
    updates, _ = stock.update(gradient, stock.init(before.params), before.params)
    for name, (old, new, update) in {
        "norm": [t["final_norm"]["scale"] if "final_norm" in t else jax.tree.leaves(t)[0] for t in (before.params, after.params, updates)],
    }.items():
        decays = np.allclose(new, old + update, rtol=1e-4, atol=1e-6) or np.allclose(
            new, old * (1 - rate * 0.1) + update, rtol=1e-4, atol=1e-6
        )
        assert decays, name


def test_micro_batches_give_the_gradient_of_the_whole_batch():
    run, corpus = bound()
    batch = np.asarray(corpus.splits["train"][: 4 * 9]).reshape(4, 9).astype(np.int32)
    outs = []
    for accumulate in (1, 4):
        one = dataclasses.replace(run, train=dataclasses.replace(run.train, accumulate=accumulate))
        static, hyper = state.static(one), state.hyper(one)
        outs.append(step.train_step(static, state.start(static, hyper), batch, hyper))
    assert float(outs[0][1]["loss"]) == pytest.approx(float(outs[1][1]["loss"]), rel=1e-5)
    for a, b in zip(jax.tree.leaves(outs[0][0].params), jax.tree.leaves(outs[1][0].params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_bfloat16_compute_keeps_float32_weights_and_loss():
    run, corpus = bound(**{"model.dtype": "bfloat16"})
    static, hyper = state.static(run), state.hyper(run)
    batch = np.asarray(corpus.splits["train"][: 4 * 9]).reshape(4, 9).astype(np.int32)
    after, metrics = step.train_step(static, state.start(static, hyper), batch, hyper)
    assert {a.dtype.name for a in jax.tree.leaves(after.params)} == {"float32"}
    assert metrics["loss"].dtype == np.float32
    exact = step.train_step(state.static(bound()[0]), state.start(static, hyper), batch, hyper)[1]
    assert float(metrics["loss"]) == pytest.approx(float(exact["loss"]), abs=0.05)
    assert float(metrics["loss"]) != float(exact["loss"]), "computed in bfloat16"


def test_evaluation_is_the_mean_over_all_windows():
    run, corpus = bound()
    params = state.start(state.static(run), state.hyper(run)).params
    windows = np.asarray(corpus.splits["test"][: 15 * 9]).reshape(15, 9).astype(np.int32)  # 15: no power of two
    logits, _ = transformer.apply(run.model, params, windows[:, :-1])
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, windows[:, 1:]).mean()
    assert float(step.evaluate(state.static(run), params, windows)) == pytest.approx(float(expected), rel=1e-6)
    assert objectives.token_losses(logits, windows[:, 1:]).shape == (15, 8)


def test_evaluation_holds_few_logits(monkeypatch):
    """As many windows at once as the bound allows, in chunks of one size."""
    run, corpus = bound()
    static, seen, own = state.static(run), [], step.model_apply
    params = state.start(static, state.hyper(run)).params
    windows = np.arange(12 * 9).reshape(12, 9) % 16
    monkeypatch.setattr(step, "model_apply", lambda run: lambda p, tokens: (seen.append(len(tokens)), own(run)(p, tokens))[1])
    whole = step.evaluate(static, params, windows)
    monkeypatch.setattr(step, "LOGITS", 5 * 4 * 8 * 16)  # five windows of 8 tokens, 16 logits each
    assert float(step.evaluate(static, params, windows)) == pytest.approx(float(whole), rel=1e-6)
    assert (seen[0], seen[-1]) == (12, 4), "4 divides 12, 5 does not"


def test_an_edited_trajectory_is_named_not_read(whole, tmp_path):
    run, corpus = bound(seed=9)
    loop.train([run], corpus, tmp_path, Progress(quiet=True))
    folder = tmp_path / "runs" / cfg.identity(run, corpus)
    segment = sorted((folder / "trajectory").glob("*.jsonl"))[0]
    lines = segment.read_text().splitlines()
    segment.write_text("\n".join([json.dumps({"step": 4, "train/loss": 0.1}), *lines[1:]]) + "\n")
    with pytest.raises(DamageError, match=segment.name):
        trajectory.read(folder)


def test_sparkline_draws_high_values_high():
    assert sparkline([3.0, 2.0, 1.0]) == "█▄▁"
    assert sparkline([1.0]) == "" and len(sparkline(range(1000))) == 24
