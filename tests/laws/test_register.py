"""Registers of sealed predictions: what counts, what is late, and that no line is lost among processes."""

import json
import multiprocessing
import os
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy import stats

from scaling_jax import laws
from scaling_jax.laws import chain, forms, seal
from scaling_jax.records import ConfigError
from tests.laws.planted import AT, POWER, found

# --- the register --------------------------------------------------------------------------------------------


def test_a_register_counts_the_first_score_of_each_seal(tmp_path):
    register = tmp_path / "register.jsonl"
    ones = [seal.seal(found(seed=s), AT, tmp_path / f"{s}.json", register=register) for s in range(3)]
    log = seal.seal(found("log"), AT, tmp_path / "log.json", register=register)
    waiting = seal.register_summary(register)
    assert waiting.overall.sealed == 4 and waiting.overall.scored == 0 and waiting.overall.coverage is None
    assert [entry["seal"] for entry in waiting.pending] == [one.sha256 for one in (*ones, log)]
    scores = [seal.score(one.path, one.predicted, register) for one in ones[:2]] + [seal.score(log.path, 9.0, register)]
    again = seal.score(log.path, log.predicted, register)
    assert [score.first for score in scores] == [True] * 3 and again.hit and not again.first and not again.counts
    out = seal.register_summary(register)
    assert (out.overall.sealed, out.overall.scored, out.overall.hits, out.second, out.late) == (4, 3, 2, 1, 0)
    assert [entry["seal"] for entry in out.pending] == [ones[2].sha256]
    exact = stats.binomtest(2, 3).proportion_ci(0.95, method="exact")
    assert (out.overall.low, out.overall.high) == pytest.approx((exact.low, exact.high))
    assert out.overall.nominal == pytest.approx(0.95)
    assert out.overall.interval_score == pytest.approx(np.mean([score.interval_score for score in scores]))
    assert out.overall.log_score == pytest.approx(np.mean([score.log_score for score in scores]))
    assert list(out.by_law) == ["power"] and out.by_law["power"] == out.overall
    last = (register).read_bytes().splitlines()[-1]
    assert out.head == json.loads(last)["sha256"]
    text = "\n".join(seal.lines(out))
    assert "4 sealed, 2 of 3 bands held (67%, 95% interval 9% to 99%; promised 95%)" in text
    assert "waiting since" in text and "1 later scores" in text
    assert "outside the 95% band" in "\n".join(seal.lines(scores[2])) and "scored before" in seal.lines(again)[-1]


def test_laws_are_told_apart(tmp_path):
    register, x = tmp_path / "register.jsonl", np.tile(np.geomspace(1e6, 1e9, 5), 2)
    data = {"tokens": x, "loss": forms.power.predict(POWER, {"params": x}) + 0.01 * np.random.default_rng(0).standard_normal(10)}
    for i, (fit, at) in enumerate([(found(), AT), (laws.fit(forms.data_power, data), {"tokens": 1e10})]):
        one = seal.seal(fit, at, tmp_path / f"{i}.json", register=register)
        seal.score(one.path, one.predicted + i, register)
    out = seal.register_summary(register)
    assert {law: tally.hits for law, tally in out.by_law.items()} == {"power": 1, "data_power": 0}
    assert any(line.startswith("data_power: 1 sealed, 0 of 1") for line in seal.lines(out))


def test_what_was_known_before_the_seal_is_no_prediction(sealed):
    register = sealed.path.with_name("register.jsonl")
    when = datetime.fromisoformat(sealed.content["sealed_at"])
    after = seal.score(sealed.path, 1.85, observed_at=datetime.now(UTC))
    assert after.prediction is True and after.counts
    zone = (when - timedelta(microseconds=1)).astimezone().isoformat()  # the same instant by this machine's clock on the wall
    before = seal.score(sealed.path, sealed.predicted, register, observed_at=zone)
    assert before.prediction is False and not before.counts and before.hit
    assert seal.score(sealed.path, 1.85, register).first is False  # no second chance
    out = seal.register_summary(register)
    assert out.not_predictions == 1 and out.overall.scored == 0 and not out.pending and out.second == 1
    entry = json.loads(register.read_text().splitlines()[1])
    assert entry["prediction"] is False and entry["sealed_at"] == sealed.content["sealed_at"] and entry["observed_at"] < entry["sealed_at"]
    for wrong, message in (
        ("2026-01-01", "zone"),
        ("soon", "expected a time"),
        (when + timedelta(days=9), "future"),
        (7, "expected a time"),
    ):
        with pytest.raises(ConfigError, match=message):
            seal.score(sealed.path, 1.85, observed_at=wrong)


def test_a_seal_that_appears_with_its_result_is_late(tmp_path):
    one = seal.seal(found(), AT, tmp_path / "seal.json")
    register = tmp_path / "register.jsonl"
    assert seal.score(one.path, one.predicted, register).late
    assert not seal.score(one.path, one.predicted, register).late
    out = seal.register_summary(register)
    assert out.late == 1 and out.overall.sealed == 1 and out.overall.scored == 1
    assert "only with their result" in seal.lines(out)[-1]


def append(path, seal_path, count):
    """What one of several processes does."""
    for i in range(count):
        seal.score(seal_path, 1.8 + i / 100, path)


def test_processes_that_append_at_once_lose_no_line(sealed):
    register = sealed.path.with_name("register.jsonl")
    spawn = multiprocessing.get_context("fork")
    workers = [spawn.Process(target=append, args=(register, sealed.path, 12)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    out = seal.register_summary(register)
    assert out.overall.scored == 1 and out.second == 47 and len(register.read_bytes().splitlines()) == 49


def test_a_full_disk_leaves_no_half_line(sealed, monkeypatch):
    register = sealed.path.with_name("register.jsonl")
    before, write, calls = register.read_bytes(), os.write, []

    def half(handle, data):
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write(handle, data[:100])

    monkeypatch.setattr(chain.os, "write", half)
    with pytest.raises(OSError, match="No space"):
        seal.score(sealed.path, 1.85, register)
    monkeypatch.undo()
    assert register.read_bytes() == before
    assert seal.score(sealed.path, 1.85, register).first
