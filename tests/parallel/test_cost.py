"""What a run costs, against counts of its weights and the 6 N D rule; members of a cohort, against lone runs."""

import math
import os
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling_jax import config as cfg
from scaling_jax.models import transformer
from scaling_jax.parallel import cost, members


def bound(steps=10, batch=8, sequence=32, accumulate=1, **model):
    model = {"vocab": 64, "width": 32, "layers": 2, "heads": 4, **model}
    data = {"sequence": sequence, "batch": batch}
    return cfg.resolve({"model": model, "data": data, "train": {"steps": steps, "accumulate": accumulate}})


MODELS = [{}, {"tie_head": True}, {"kv_heads": 2, "mlp": "gelu"}, {"head_dim": 6, "qk_norm": True}, {"layers": 5, "mlp_width": 40}]


@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize("sequence", [1, 32])
def test_flops_of_the_real_weights(model, sequence):
    """6 per token and weight of a matmul, and 6 of attention's two products per key a causal query really sees."""
    run = bound(sequence=sequence, **model)
    shapes = jax.eval_shape(lambda: transformer.init(run.model, jax.random.key(0)))
    size = {"/".join(p.key for p in path): leaf.size for path, leaf in jax.tree.leaves_with_path(shapes)}
    kernels = sum(n for name, n in size.items() if name.endswith("kernel")) + run.model.tie_head * size["embed/table"]
    pairs = sum(range(1, sequence + 1))  # of a query and a key it sees
    attention = 2 * 2 * run.model.heads * run.model.channels * run.model.layers * pairs / sequence
    found = cost.of_run(run)
    assert found.tokens == 10 * 8 * sequence
    assert found.flops == pytest.approx(3 * found.tokens * (2 * kernels + attention), rel=1e-12)
    assert found.parameters == sum(size.values())


def test_six_n_d():
    """The rule of thumb, N without the embedding (arXiv:2001.08361): short windows, wide layers."""
    run = bound(width=768, layers=12, heads=12, sequence=128, vocab=256)
    count, found = transformer.parameters(run.model), cost.of_run(run)
    assert found.flops / (6 * count.body * found.tokens) == pytest.approx(1, abs=0.02)


def test_cost_grows_as_it_should():
    base = cost.of_run(bound())
    assert cost.of_run(bound(steps=20)) == cost.Cost(base.parameters, 2 * base.flops, 2 * base.tokens, base.bytes)
    assert cost.of_run(bound(batch=16)).flops == 2 * base.flops
    halved = cost.of_run(bound(accumulate=2))
    weights = 16 * base.parameters  # weight, gradient and two moments, four bytes each
    assert halved.flops == base.flops and 2 * (halved.bytes - weights) == base.bytes - weights > 0


# --- peaks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v5", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H200", 989e12),
    ],
)
def test_a_known_device_has_its_vendors_peak(kind, peak, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [types.SimpleNamespace(device_kind=kind)])
    assert cost.peak.__wrapped__() == (peak, f"{kind}, vendor's bfloat16 peak")


def test_another_device_is_measured(monkeypatch):
    value, source = cost.peak()
    assert 1e8 < value < 1e14 and source.endswith("float32 matmul measured here")
    monkeypatch.setattr(cost, "peak", lambda: (1e12, "made up"))
    run = bound()
    share, overhead = cost.EXPECTED["cpu"]
    alone = cost.of_run(run).flops / (share * 1e12) + 10 * overhead
    assert cost.expected_seconds([run]) == pytest.approx(alone)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert members.at_once("loop", 10**6) == cores
    assert cost.expected_seconds([run] * 2 * cores) == pytest.approx(2 * alone)  # a core each, twice
    stacked = run.replace(**{"train.members": "map"})
    assert cost.expected_seconds([stacked] * 3) == pytest.approx(3 * alone)


def test_members_of_a_loop_compute_side_by_side(monkeypatch):
    """The second and the third wait for each other: one after the other they never meet."""
    meet = threading.Barrier(2, timeout=10)
    pool = ThreadPoolExecutor(2)
    monkeypatch.setattr(members, "_threads", lambda: pool)
    monkeypatch.setattr(jax, "jit", lambda function, **_: function)
    lifted = members.over_members(lambda i: i if i == 0 else meet.wait() * 0 + i, "loop")
    assert lifted([0, 1, 2]) == [0, 1, 2]


# --- for people ----------------------------------------------------------------------------------------------------

LETTERS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}


@given(st.floats(1.0, 9e20))
def test_people_read_back_what_was_written(value):
    text = cost.people(value, "B")
    assert text.endswith("B") and "e" not in text and len(text) <= 6
    number = text[:-1]
    size = LETTERS.get(number[-1], 1.0)
    assert float(number.rstrip("".join(LETTERS))) * size == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1.23M"), (999, "999"), (999.6, "1k"), (999_999, "1M"), (1e3, "1k"), (0, "0"), (-2e9, "-2G"), (0.5, "0.5")],
)
def test_people(value, text):
    assert cost.people(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (75, "1 min 15 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (90061, "25 h 01 min"),
    ],
)
def test_duration(seconds, text):
    assert cost.duration(seconds) == text


# --- members -------------------------------------------------------------------------------------------------------

COUNT = 3


def step(state, rate):
    """A step like a training step: a scan of gradient steps of a small network, members differing in weights and rate."""
    x = jnp.linspace(-1, 1, 12).reshape(6, 2)
    loss = lambda w: jnp.mean((jnp.tanh(x @ w["a"]) @ w["b"] - jnp.sin(3 * x[:, :1])) ** 2)

    def one(w, _):
        value, slope = jax.value_and_grad(loss)(w)
        return jax.tree.map(lambda p, g: p - rate * g, w, slope), value

    return jax.lax.scan(one, state, None, length=5)


def starts():
    rng = np.random.default_rng(0)
    return [{"a": jnp.float32(rng.normal(size=(2, 4))), "b": jnp.float32(rng.normal(size=(4, 1)))} for _ in range(COUNT)]


RATES = [np.float32(rate) for rate in (0.01, 0.1, 0.5)]


def trained(how, states=None, rates=RATES):
    arguments = [members.gather(values, how) for values in (starts() if states is None else states, rates)]
    states, losses = members.over_members(step, how)(*arguments)
    return list(zip(members.split(states, how), members.split(losses, how), strict=True))


@pytest.mark.parametrize("how", ["loop", "map", "vmap"])
def test_a_member_is_its_lone_run(how):
    lone = jax.jit(step)
    for got, state, rate in zip(trained(how), starts(), RATES, strict=True):
        want = lone(state, rate)
        same = np.testing.assert_array_equal if how == "loop" else lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        jax.tree.map(same, got, want)
    losses = [float(loss[-1]) for _, loss in trained(how)]
    assert len(set(losses)) == COUNT


@pytest.mark.parametrize("how", ["loop", "map"])
def test_a_member_does_not_depend_on_the_others(how):
    """Bitwise, so that a cohort may be cut anywhere; batched products promise no such thing."""
    everyone, order = trained(how), [2, 0]
    some = trained(how, [starts()[i] for i in order], [RATES[i] for i in order])
    for got, i in zip(some, order, strict=True):
        jax.tree.map(np.testing.assert_array_equal, got, everyone[i])


@pytest.mark.parametrize("how", ["loop", "map", "vmap"])
def test_split_undoes_gather(how):
    again = members.split(members.gather(starts(), how), how)
    assert len(again) == COUNT
    jax.tree.map(np.testing.assert_array_equal, again, starts())


def test_a_function_of_one_result():
    doubled = lambda how: members.split(members.over_members(lambda x: 2 * x, how)(members.gather(RATES, how)), how)
    for how in ("loop", "map", "vmap"):
        np.testing.assert_array_equal(doubled(how), 2 * np.array(RATES))


@pytest.mark.parametrize("how", ["loop", "map", "vmap"])
def test_a_donated_argument_is_gone(how):
    """Weights and moments would otherwise be held twice."""
    states, rates = members.gather(starts(), how), members.gather(RATES, how)
    results, _ = members.over_members(step, how, donate=(0,))(states, rates)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(states))
    assert all(math.isfinite(float(leaf.sum())) for leaf in jax.tree.leaves(results))


def test_what_auto_means():
    assert members.resolve("auto", "cpu") == "loop" == members.resolve("auto")
    assert members.resolve("auto", "tpu") == members.resolve("auto", "gpu") == "vmap"
    assert {how: members.resolve(how, "cpu") for how in ("loop", "map", "vmap")} == {h: h for h in ("loop", "map", "vmap")}
