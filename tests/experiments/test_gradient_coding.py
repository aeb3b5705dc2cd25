"""Sequential gradient coding: codes decode, schemes keep their promise, gradients are those of plain training, traces are what they say."""

import itertools
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_jax import config as cfg
from scaling_jax.records import ConfigError
from scaling_jax.studies import runner, worlds
from scaling_jax.studies.rows import Data
from tests.studies.test_contract import planned

PATH = Path(__file__).resolve().parents[2] / "experiments" / "systems" / "gradient_coding" / "study.py"
STAGES = cfg.import_file(PATH).stages
simulate, codes, traces = STAGES.simulate, STAGES.codes, STAGES.traces
schedule, workload, Design, Trace = simulate.schedule, simulate.workload, codes.Design, traces.Trace
PAPER = {"GC": Design("GC", s=15), "SR-SGC": Design("SR-SGC", B=2, W=3, lam=23), "M-SGC": Design("M-SGC", B=1, W=2, lam=27)}


# --- codes -----------------------------------------------------------------------------------------------------


def test_loads_are_those_of_the_paper():
    assert codes.load(PAPER["GC"], 256) == 0.0625
    assert codes.load(PAPER["SR-SGC"], 256) == pytest.approx(0.0508, abs=5e-5) and codes.tolerated(PAPER["SR-SGC"]) == 12
    assert codes.load(PAPER["M-SGC"], 256) == pytest.approx(0.00754, abs=5e-6)
    assert codes.load(Design(), 256) == 1 / 256
    assert [codes.delay(PAPER[scheme]) for scheme in ("GC", "SR-SGC", "M-SGC")] == [0, 2, 1]


@given(st.integers(2, 64), st.integers(1, 6), st.integers(0, 6), st.data())
def test_no_load_is_below_the_bound_and_multiplexing_reaches_it(n, B, more, data):
    W, lam = B + 1 + more, data.draw(st.integers(1, n))
    mine, bound = codes.load(Design("M-SGC", B=B, W=W, lam=lam), n), codes.least_load(n, B, W, lam)
    assert mine >= bound * (1 - 1e-12)
    if lam >= n - 1:
        assert mine == pytest.approx(bound, rel=1e-12)
    elif lam < n - 1:
        assert mine > bound
    if lam < n and more % B == B - 1:  # W - 1 divisible by B
        assert codes.load(Design("SR-SGC", B=B, W=W, lam=lam), n) >= bound * (1 - 1e-12)


@pytest.mark.parametrize("n, s", [(4, 1), (5, 2), (6, 3), (7, 2), (8, 3), (9, 4), (10, 2), (6, 5)])
def test_every_erasure_of_s_workers_decodes(n, s):
    code, parts = codes.cyclic_code(n, s), np.random.default_rng(0).standard_normal((n, 5))
    for i in range(n):
        assert set(np.flatnonzero(code[i])) == {(i + k) % n for k in range(s + 1)}, "a worker touches s + 1 chunks"
    full = parts.sum(0)
    for lost in range(s + 1):
        for out in itertools.combinations(range(n), lost):
            answered = tuple(i for i in range(n) if i not in out)
            found = codes.decoder(n, s, answered) @ (code[list(answered)] @ parts)
            assert np.abs(found - full).max() <= 1e-10 * np.abs(full).max()
    with pytest.raises(ValueError, match=f"the code needs {n - s}"):
        codes.decoder(n, s, tuple(range(n - s - 1)))
    holders = [i for i in range(n) if code[i, s % n] != 0]
    kept = [i for i in range(n) if i not in holders]
    assert len(holders) == s + 1 and not code[kept][:, s % n].any(), "with s + 1 lost a chunk is lost: the load is the least"


@pytest.mark.parametrize("n, s", [(32, 16), (64, 8), (64, 31)])
def test_large_codes_decode_bursts_and_scattered_erasures(n, s):
    code, parts, rng = codes.cyclic_code(n, s), np.random.default_rng(0).standard_normal((n, 5)), np.random.default_rng(1)
    for out in [(np.arange(s) + 7) % n, *(rng.choice(n, s, replace=False) for _ in range(10))]:
        answered = tuple(np.setdiff1d(np.arange(n), out).tolist())
        found = codes.decoder(n, s, answered) @ (code[list(answered)] @ parts)
        assert np.abs(found - parts.sum(0)).max() <= 1e-10 * np.abs(parts.sum(0)).max()


@pytest.mark.parametrize(
    "design, words",
    [
        (Design("GC", s=8), "s = 8"),
        (Design("M-SGC", B=2, W=2, lam=3), "a window longer than a burst"),
        (Design("M-SGC", lam=9), "lam = 9"),
        (Design("SR-SGC", B=2, W=4, lam=3), "divisible by B"),
    ],
)
def test_designs_that_cannot_be_are_named(design, words):
    with pytest.raises(ConfigError, match=words):
        schedule.run(design, np.ones((20, 8)), 4, 1.0)


# --- schedules -------------------------------------------------------------------------------------------------


def bursty(pattern, B, W, lam):
    """The model as the paper words it: in every W consecutive rounds at most lam stragglers, each within B consecutive rounds."""
    for begin in range(max(1, len(pattern) - W + 1)):
        window = pattern[begin : begin + W]
        if window.any(0).sum() > lam:
            return False
        for worker in window.T:
            at = np.flatnonzero(worker)
            if at.size and at[-1] - at[0] >= B:
                return False
    return True


def conforming(shape, allowed, rng, rate):
    """A pattern to which no straggler can be added without leaving the model, or with fewer: taken up one by one in random order."""
    pattern = np.zeros(shape, bool)
    for t in range(shape[0]):
        for i in rng.permutation(shape[1]):
            if rng.random() < rate:
                pattern[t, i] = True
                if not allowed(pattern[: t + 1]):
                    pattern[t, i] = False
    return pattern


def promise_kept(design, pattern, jobs):
    """The master never waits longer, takes as stragglers those of the pattern, and every job is decoded by t + T."""
    done = schedule.run(design, np.where(pattern, 100.0, 1.0), jobs, slope=0.0)
    assert done.waited == 0 and (done.finished <= np.arange(jobs) + codes.delay(design)).all() and (done.finished >= np.arange(jobs)).all()
    # once the last job has started, the workers that were fast may have nothing left to do: the fastest busy one is slow
    assert set(done.seconds[:jobs]) <= {0.0, 1.0, 2.0}
    for answers in done.answers:
        assert all(len(workers) >= pattern.shape[1] - codes.tolerated(design) for workers in answers)
        assert len(answers) == (design.B if design.scheme == "M-SGC" and design.lam < pattern.shape[1] else design.scheme != "M-SGC")


@settings(max_examples=80)
@given(st.integers(3, 9), st.integers(1, 3), st.integers(1, 3), st.data())
def test_every_job_is_decoded_in_time_on_bursty_patterns(n, B, x, data):
    seed, rate = data.draw(st.integers(0, 2**31)), data.draw(st.sampled_from([0.1, 0.5, 1.0]))
    scheme = data.draw(st.sampled_from(["SR-SGC", "M-SGC"]))
    W = x * B + 1 if scheme == "SR-SGC" else B + x
    lam = data.draw(st.integers(1, n))
    design = Design(scheme, B=B, W=W, lam=lam)
    jobs, rng = 14, np.random.default_rng(seed)
    if codes.tolerated(design) >= n and scheme == "SR-SGC":
        return
    pattern = conforming((jobs + codes.delay(design), n), lambda p: bursty(p[-W:], B, W, lam) and p[-1].sum() < n, rng, rate)
    assert bursty(pattern, B, W, lam)
    promise_kept(design, pattern, jobs)


@settings(max_examples=40)
@given(st.integers(3, 9), st.data())
def test_every_job_is_decoded_in_time_with_s_stragglers_a_round(n, data):
    s, rng = data.draw(st.integers(1, n - 1)), np.random.default_rng(data.draw(st.integers(0, 2**31)))
    pattern = conforming((20, n), lambda p: p[-1].sum() <= s, rng, 1.0)
    promise_kept(Design("GC", s=s), pattern, 14)
    lam = min(n, 2 * s)
    if codes.tolerated(Design("SR-SGC", B=2, W=3, lam=lam)) == s:
        promise_kept(Design("SR-SGC", B=2, W=3, lam=lam), pattern, 14)


def test_bursts_that_fill_the_model_are_repeated_in_time():
    """Every worker in turn: slow for B rounds, then for W - 1 rounds not."""
    for B, W in ((1, 2), (2, 3), (2, 5), (3, 4)):
        n = 6
        pattern = np.array([[(t + i * B) % (W - 1 + B) < B for i in range(n)] for t in range(30)])
        assert bursty(pattern, B, W, n)
        promise_kept(Design("M-SGC", B=B, W=W, lam=n), pattern, 20)


@pytest.mark.parametrize("design", [Design("M-SGC", lam=3), Design("SR-SGC", lam=2), Design("GC", s=1), Design()])
def test_outside_its_model_the_master_waits(design):
    rng, n, jobs = np.random.default_rng(3), 8, 40
    delays = 1 + 4 * rng.random((jobs + 4, n)) * (rng.random((jobs + 4, n)) < 0.3)
    patient, enough = (schedule.run(design, delays, jobs, 0.5, wait) for wait in ("all", "enough"))
    assert patient.waited > 0 and (patient.finished >= 0).all() and (enough.finished >= 0).all()
    work = 0.5 * codes.load(design, n)
    assert patient.seconds[0] in (pytest.approx(delays[0].max() + work), pytest.approx(2 * (delays[0].min() + work)))
    assert enough.total <= patient.total
    if design.scheme == "GC":
        first = schedule.run(replace(design, mu=0.0), delays, jobs, 0.5, "enough")
        assert first.seconds == pytest.approx(np.sort(delays[:jobs], 1)[:, n - 1 - design.s] + work), (
            "the n - s fastest, as Tandon et al. wait"
        )


def hashed(rounds, workers):
    """Delays without a pattern of ours, for times computed elsewhere."""
    r, i = np.indices((rounds, workers))
    return 1 + ((r * r + 5 * i + r * i) % 11 < 1 + r % 2) * (1 + (r + i) % 3) + ((r + 2 * i) % 5) / 20


@pytest.mark.parametrize(
    "design, seconds",
    [
        (Design("M-SGC", B=1, W=2, lam=3), 62.82666666666667),
        (Design("M-SGC", B=1, W=2, lam=6), 63.954166666666666),
        (Design("M-SGC", B=2, W=3, lam=5), 71.41428571428573),
        (Design("M-SGC", B=1, W=3, lam=4), 68.05),
        (Design("M-SGC", B=2, W=3, lam=11), 72.45384615384616),
        (Design("GC", s=1), 76.16666666666666),
        (Design("GC", s=2), 71.9),
        (Design("GC", s=3), 75.98333333333335),
        (Design("SR-SGC", B=1, W=2, lam=2), 69.76666666666667),
        (Design("SR-SGC", B=1, W=2, lam=6), 75.98333333333335),
        (Design(), 79.95),
    ],
    ids=lambda value: codes.name(value) if isinstance(value, Design) else "",
)
def test_times_are_those_of_the_authors_programs(design, seconds):
    """24 jobs of 12 workers at 2.2 s per unit of load; their GC, which stops one straggler short of what its load pays for, at s + 1."""
    assert schedule.run(design, hashed(30, 12), 24, 2.2).total == pytest.approx(seconds, rel=1e-12)


# --- gradients -------------------------------------------------------------------------------------------------


def test_gradients_are_those_of_jax():
    data = workload.batches(3, 50, seed=1)
    weights = workload.start(np.random.default_rng(2))

    def loss(weights):
        logits = jnp.tanh(data.x[0] @ weights["w1"] + weights["b1"][None]) @ weights["w2"] + weights["b2"][None]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.asarray(data.y[0])[:, None], 1).sum()

    expected = jax.grad(loss)(jax.tree.map(jnp.asarray, weights))
    flat = np.concatenate([np.ravel(expected[name]) for name in ("w1", "b1", "w2", "b2")])
    samples = workload.gradients(weights, data.x[0], data.y[0])
    assert np.abs(samples.sum(0) - flat).max() <= 1e-5 * np.abs(flat).max()
    assert 50 * workload.loss(weights, data.x[0], data.y[0]) == pytest.approx(float(loss(weights)), rel=1e-5)
    for shares in (np.ones(7), np.ones(80), np.array([5.0, 1, 1, 5, 0.1])):
        parts = workload.chunks(samples, shares)
        assert len(parts) == len(shares) and np.allclose(parts.sum(0), samples.sum(0), rtol=1e-12)


def test_uncoded_training_is_plain_gradient_descent():
    found = simulate.compete(simulate.Contest(workers=4, jobs=6, models=2, batch=20, gc=Design("GC", s=1)), 5)
    row = next(row for row in found["rows"] if row["scheme"] == "uncoded")
    data, networks = workload.batches(6, 20, 5), [workload.start(np.random.default_rng([5, 23, m])) for m in range(2)]

    def loss(weights, x, y):
        logits = jnp.tanh(x @ weights["w1"] + weights["b1"][None]) @ weights["w2"] + weights["b2"][None]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.asarray(y)[:, None], 1).mean()

    for t in range(6):
        gradient = jax.grad(loss)(jax.tree.map(jnp.asarray, networks[t % 2]), data.x[t], data.y[t])
        networks[t % 2] = jax.tree.map(lambda w, g: w - workload.RATE * g, networks[t % 2], gradient)
    plain = np.mean([loss(network, data.test_x, data.test_y) for network in networks])
    assert row["loss"] == pytest.approx(float(plain), rel=1e-5) and row["loss"] < row["loss_before"] and row["loss_gap"] <= 1e-14


@pytest.mark.parametrize(
    "msgc",
    [Design("M-SGC", lam=5, mu=0.5), Design("M-SGC", B=2, W=3, lam=11, mu=0.5), Design("M-SGC", B=1, W=3, lam=12, mu=0.5)],
    ids=codes.name,
)
def test_decoded_gradients_train_as_plain_ones(msgc):
    contest = simulate.Contest(
        Trace("gilbert", memory=0.3, straggle=0.15),
        Design("GC", s=3, mu=0.5),
        Design("SR-SGC", B=1, W=2, lam=8, mu=0.5),
        msgc,
        workers=12,
        jobs=16,
        batch=64,
    )
    rows = simulate.compete(contest, 1)["rows"]
    assert [row["scheme"] for row in rows] == list(codes.SCHEMES)
    assert all(row["decode_error"] <= 1e-10 and row["loss_gap"] <= 1e-10 and row["loss"] < row["loss_before"] for row in rows)
    assert all(row["stragglers"] > 0.1 for row in rows[1:]), "else nothing was decoded around"


def test_a_wrong_decoder_is_seen(monkeypatch):
    right = codes.decoder
    monkeypatch.setattr(codes, "decoder", lambda n, s, answered: right(n, s, answered) * (1 + 1e-8))
    with pytest.raises(RuntimeError, match="gradients decoded to 1.0e-08"):
        simulate.compete(simulate.Contest(workers=6, jobs=4, batch=24), 0)


def test_a_delay_needs_models_trained_in_turn():
    with pytest.raises(ConfigError, match="models = 2: M-SGC B=2 W=3 .* 3 rounds late, so 4 models"):
        simulate.compete(simulate.Contest(msgc=Design("M-SGC", B=2, W=3, lam=2), workers=6, jobs=8, models=2, batch=24), 0)
    for scheme in codes.SCHEMES:
        every = simulate.candidates(scheme, 16, 4, (0.5, 1.0))
        assert every and all(codes.delay(codes.check(one, 16)) < 4 for one in every) and len(set(map(codes.name, every))) == len(every)


# --- claims ----------------------------------------------------------------------------------------------------


def test_pod_is_the_papers_size():
    unit = next(u for u in planned(PATH, "pod") if u.config.function.__name__ == "compete")
    assert (unit.config.settings.workers, unit.config.settings.jobs, unit.config.settings.models) == (256, 480, 4)


def null(what, rng):
    """Times that owe nothing to the scheme, the bursts or the design."""
    if what.function.__name__ == "search":
        every = simulate.candidates(what.settings.scheme, what.settings.workers, what.settings.models, what.settings.mus)
        return {codes.name(one): float(rng.lognormal(4.0, 0.05)) for one in every}
    slow = rng.lognormal(0.0, 0.1)  # of the trace, which all schemes share
    return {"rows": [{"scheme": scheme, "time": float(80 * slow * rng.lognormal(0.0, 0.03))} for scheme in codes.SCHEMES]}


@pytest.mark.full
def test_a_world_in_which_no_scheme_is_faster_seldom_makes_a_claim_hold():
    study, _ = runner.load(str(PATH))
    wrong = sum(
        v.verdict == "holds"
        for seed in range(60)
        for v in worlds.live(study, "tiny", worlds.World(None, simulate=null), seed, permutations=400)
    )
    assert wrong <= 60 * 7 * 0.07


def test_paired_nulls_count_their_relabelings():
    study, _ = runner.load(str(PATH))
    rows = [
        dict(generator=g, bursts=b, wait="all", multiple=1, seed=seed, scheme=scheme, time=1.0, runs=(f"{g} {b} {seed}",))
        for g, b, seed, scheme in itertools.product(("gilbert", "slow periods"), ("none", "short", "long"), range(4), codes.SCHEMES)
    ]
    data = Data(pd.DataFrame(rows), {row["runs"][0]: row["runs"][0][:-2] for row in rows})
    assert [claim.exchange.arrangements(data) for claim in study.claims[:6]] == [2**8] * 6, "two labels on each of eight traces"
    found = worlds.live(
        replace(study, settings={**study.settings, "seeds": 3}), "tiny", worlds.World(None, simulate=null), 0, permutations=100
    )
    assert {v.verdict for v in found} <= {"holds", "fails", "undecided"} and {v.n for v in found} == {6, 12}
