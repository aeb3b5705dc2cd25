"""AdamW against optax's own, the paper's algorithm in float64, and the decay mask as coded."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scaling_jax.models import transformer
from scaling_jax.optim import adamw
from scaling_jax.records import ConfigError, build

STEPS = 6
AXES = {"gain": ("norm",), "layers": {"gain": ("layer", "norm"), "kernel": ("layer", "embed", "mlp")}, "table": ("vocab", "embed")}
SHAPES = {"gain": (4,), "layers": {"gain": (2, 4), "kernel": (2, 4, 6)}, "table": (5, 4)}
MASK = {"gain": False, "layers": {"gain": False, "kernel": True}, "table": True}
HYPER = {"learning_rate": 0.02, "weight_decay": 0.3, "b1": 0.9, "b2": 0.95, "epsilon": 1e-8}
RATES = 0.02 * np.array([0.5, 1.0, 0.9, 0.5, 0.2, 0.0], np.float32)
tuples = functools.partial(jax.tree.map, is_leaf=lambda a: isinstance(a, tuple))


def random(seed):
    rng = np.random.default_rng(seed)
    return tuples(lambda shape: rng.standard_normal(shape).astype(np.float32), SHAPES)


GRADIENTS = jax.tree.map(lambda *g: np.stack(g), *[random(10 + i) for i in range(STEPS)])


def walk(weights, hyper, rates):
    """Weights after each step [STEPS, ...]; a scan, as a training loop carries the state."""
    rule = lambda rate: adamw.rule(adamw.Config(), {**hyper, "rate": rate}, AXES)

    def one(carry, inputs):
        w, state = carry
        updates, state = rule(inputs[1]).update(inputs[0], state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    return jax.lax.scan(one, (weights, rule(0.0).init(weights)), (GRADIENTS, rates))[1]


lone = jax.jit(walk)  # every number is traced: one program for all of them


def ours(hyper=HYPER, rates=RATES):
    return lone(random(0), {name: np.float32(value) for name, value in hyper.items()}, rates)


def close(got, want, tolerance):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max(), rtol=0)


def test_equals_optax_adamw():
    theirs = optax.adamw(lambda step: jnp.asarray(RATES)[step], HYPER["b1"], HYPER["b2"], HYPER["epsilon"], weight_decay=0.3, mask=MASK)
    w, found = random(0), []
    state, update = theirs.init(w), jax.jit(theirs.update)
    for i in range(STEPS):
        updates, state = update(jax.tree.map(lambda g, i=i: g[i], GRADIENTS), state, w)
        w = optax.apply_updates(w, updates)
        found.append(w)
    close(ours(), jax.tree.map(lambda *a: np.stack(a), *found), 1e-6)


def naive(hyper, rates, weights, gradients, decayed):
    """Algorithm 2 of arXiv:1711.05101 (alpha = 1, eta = rate, lambda = weight_decay), float64."""
    w, out = np.asarray(weights, np.float64), []
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (g, rate) in enumerate(zip(np.asarray(gradients, np.float64), np.asarray(rates, np.float64), strict=True), 1):
        m = hyper["b1"] * m + (1 - hyper["b1"]) * g
        v = hyper["b2"] * v + (1 - hyper["b2"]) * g * g
        step = m / (1 - hyper["b1"] ** t) / (np.sqrt(v / (1 - hyper["b2"] ** t)) + hyper["epsilon"])
        w = w - rate * (step + hyper["weight_decay"] * decayed * w)
        out.append(w)
    return np.stack(out)


@pytest.mark.parametrize("change", [{}, {"b1": 0.0}, {"b2": 0.999, "weight_decay": 0.0}, {"epsilon": 0.1, "weight_decay": 3.2}])
def test_equals_the_algorithm_in_float64(change):
    hyper = HYPER | change
    want = jax.tree.map(functools.partial(naive, hyper, RATES), random(0), GRADIENTS, MASK)
    close(ours(hyper), want, 1e-5)


def test_only_matrices_decay():
    """Without gradients the kernels and the table shrink by 1 - rate x decay a step, and gains stay."""
    weights = random(0)
    rule = adamw.rule(adamw.Config(), {**HYPER, "rate": 0.5}, AXES)
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, weights), rule.init(weights), weights)
    close(updates, jax.tree.map(lambda w, on: -0.5 * 0.3 * w * on, weights, MASK), 1e-6)
    assert np.abs(updates["table"]).max() > 0.1


def test_which_weights_of_the_decoder_decay():
    config = transformer.Config(vocab=8, width=8, layers=2, heads=2, qk_norm=True)
    axes = transformer.axes(config)
    weights = tuples(lambda names: jnp.ones((1,) * len(names)), axes)
    rule = adamw.rule(adamw.Config(), {**HYPER, "rate": 1.0}, axes)
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, weights), rule.init(weights), weights)
    kept = {"/".join(p.key for p in path) for path, u in jax.tree.leaves_with_path(updates) if not np.abs(u).max()}
    norms = {f"layers/{name}/scale" for name in ("attention_norm", "mlp_norm", "attention/query_norm", "attention/key_norm")}
    assert kept == {"final_norm/scale"} | norms


def test_members_with_their_own_numbers_are_lone_runs():
    several = [HYPER, HYPER | {"b1": 0.5, "weight_decay": 1.0}, HYPER | {"b2": 0.5, "epsilon": 1e-3}]
    rates = np.stack([RATES, 2 * RATES, RATES[::-1]])
    hyper = {name: np.float32([h[name] for h in several]) for name in HYPER}
    together = jax.jit(jax.vmap(walk, in_axes=(None, 0, 0)))(random(0), hyper, rates)
    for i, alone in enumerate(several):
        close(jax.tree.map(lambda a, i=i: a[i], together), ours(alone, rates[i]), 1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"b1": 1.0}, "config.b1 = 1.0: must be less than 1.0"),  # the bias correction would divide by zero
        ({"b2": 1}, "config.b2 = 1.0: must be less than 1.0"),
        ({"b1": -0.1}, "config.b1 = -0.1: must be at least 0.0"),
        ({"learning_rate": 0.0}, "config.learning_rate = 0.0: must be greater than 0.0"),
        ({"weight_decay": -1.0}, "config.weight_decay = -1.0: must be at least 0.0"),
        ({"epsilon": 0.0}, "config.epsilon = 0.0: must be greater than 0.0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        build(adamw.Config, fields)
