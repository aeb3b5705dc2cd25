"""The decoder against an independent float64 reference, stock Flax parts and closed forms."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from scaling_jax.models import layers
from scaling_jax.models import transformer as model
from scaling_jax.records import ConfigError
from tests.models import reference

VARIANTS = {
    "plain": {},
    "grouped": {"heads": 4, "kv_heads": 2},
    "one_kv_head": {"heads": 4, "kv_heads": 1},
    "gelu_tied": {"mlp": "gelu", "tie_head": True},
    "qk_norm": {"qk_norm": True, "rope_theta": 500.0},
    "own_head_dim": {"heads": 3, "head_dim": 6},
}

init = jax.jit(model.init, static_argnums=0)
apply = jax.jit(model.apply, static_argnums=0, static_argnames="capture")


def make(**fields):
    return model.Config(**{"vocab": 17, "width": 16, "layers": 3, "heads": 2, **fields})


def drawn(config, seed=0):
    """Parameters with every gain away from one, so that a missing gain is seen."""
    params = init(config, jax.random.key(seed))
    jitter = np.random.default_rng(seed)
    return jax.tree.map(lambda a: np.asarray(a) + 0.1 * jitter.standard_normal(a.shape), params)


@pytest.mark.parametrize("name", VARIANTS)
def test_equals_the_float64_reference(name):
    config = make(**VARIANTS[name], dtype="float64", head_dtype="float64")
    tokens = np.random.default_rng(1).integers(0, 17, (2, 9))
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, drawn(config))
        got = np.asarray(apply(config, params, jnp.asarray(tokens))[0])
    want = np.stack([reference.logits(config, params, row) for row in tokens])
    # norms, softmax and rope stay float32 by decision: the tolerance is theirs
    assert np.abs(got - want).max() < 2e-6 * np.abs(want).max()


@pytest.mark.parametrize("name", ["plain", "grouped"])
@pytest.mark.parametrize("change", [{"scan_layers": True}, {"remat": True}, {"scan_layers": True, "remat": True}])
def test_scan_and_remat_change_nothing(name, change):
    config = make(**VARIANTS[name])
    params, tokens = drawn(config), np.arange(16).reshape(2, 8)
    loss = lambda c: jax.jit(jax.value_and_grad(lambda p: jnp.square(model.apply(c, p, tokens)[0]).mean()))(
        jax.tree.map(jnp.float32, params)
    )
    for a, b in zip(jax.tree.leaves(loss(config)), jax.tree.leaves(loss(dataclasses.replace(config, **change))), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max())


def test_decoding_with_a_cache_equals_the_full_pass():
    config = make(heads=4, kv_heads=2)
    params = jax.tree.map(jnp.float32, drawn(config))
    tokens = np.random.default_rng(2).integers(0, 17, (3, 11))
    full, _ = apply(config, params, tokens)
    cache, parts = model.start_cache(config, 3, 11), []
    for begin, end in ((0, 5), (5, 6), (6, 11)):
        out, aux = apply(config, params, tokens[:, begin:end], cache=cache)
        cache, parts = aux["cache"], [*parts, out]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), full, atol=2e-5)
    assert int(cache["length"]) == 11


def test_captures_the_residual_stream():
    config = make()
    params = jax.tree.map(jnp.float32, drawn(config))
    logits, aux = apply(config, params, np.zeros((2, 5), np.int32), capture=("residual",))
    assert aux["residual"].shape == (3, 2, 5, 16)
    last = layers.RMSNorm(16, config.norm_epsilon).apply({"params": params["final_norm"]}, aux["residual"][-1])
    np.testing.assert_allclose(np.asarray(last) @ np.asarray(params["head"]["kernel"]), logits, atol=1e-5)


def test_future_tokens_are_not_seen():
    config = make()
    params = jax.tree.map(jnp.float32, drawn(config))
    tokens = np.random.default_rng(3).integers(0, 17, (1, 8))
    changed = tokens.copy()
    changed[0, 5:] = (changed[0, 5:] + 3) % 17
    a, b = (apply(config, params, t)[0] for t in (tokens, changed))
    np.testing.assert_array_equal(a[0, :5], b[0, :5])
    assert np.abs(a[0, 5:] - b[0, 5:]).max() > 1e-3


def test_attention_equals_flax():
    q, k, v = (jax.random.normal(jax.random.key(i), (2, 7, 4, 8)) for i in range(3))
    causal = nn.make_causal_mask(jnp.ones((2, 7)))
    want = nn.dot_product_attention(q, k, v, mask=causal)
    np.testing.assert_allclose(layers.attention(q, k, v, layers.AttentionMask()), want, atol=1e-6)


def test_rms_norm_equals_flax():
    x = jax.random.normal(jax.random.key(0), (3, 5, 16)) * 4
    want, params = nn.RMSNorm(epsilon=1e-5).init_with_output(jax.random.key(1), x)
    np.testing.assert_allclose(layers.RMSNorm(16, 1e-5).apply(params, x), want, rtol=1e-6)


def test_mask_window_and_documents():
    segments = jnp.array([[0, 0, 1, 1, 1]])
    dense = np.asarray(layers.AttentionMask(window=2, segments_BT=segments).dense(5, 5))[0]
    want = [[t >= s and t - s < 2 and (t >= 2) == (s >= 2) for s in range(5)] for t in range(5)]
    np.testing.assert_array_equal(dense, want)


def test_parameter_names_axes_and_counts():
    config = make(qk_norm=True)
    params, axes = init(config, jax.random.key(0)), model.axes(config)
    names = sorted("/".join(p.key for p in path) for path, _ in jax.tree.leaves_with_path(params))
    assert names == [
        "embed/table",
        "final_norm/scale",
        "head/kernel",
        "layers/attention/key/kernel",
        "layers/attention/key_norm/scale",
        "layers/attention/output/kernel",
        "layers/attention/query/kernel",
        "layers/attention/query_norm/scale",
        "layers/attention/value/kernel",
        "layers/attention_norm/scale",
        "layers/mlp/down/kernel",
        "layers/mlp/gate/kernel",
        "layers/mlp/up/kernel",
        "layers/mlp_norm/scale",
    ]
    for leaf, name in zip(jax.tree.leaves(params), jax.tree.leaves(axes, is_leaf=lambda a: isinstance(a, tuple)), strict=True):
        assert leaf.ndim == len(name) and leaf.dtype == jnp.float32
    assert all(a[0] == "layer" for a in jax.tree.leaves(axes["layers"], is_leaf=lambda a: isinstance(a, tuple)))
    count = model.parameters(config)
    assert count.total == sum(a.size for a in jax.tree.leaves(params)) and count.embedding == 2 * 17 * 16


def test_init_of_a_layer_does_not_depend_on_depth_or_other_parameters():
    shallow, deep = (init(make(layers=n, tie_head=tie), jax.random.key(3)) for n, tie in ((2, True), (3, False)))
    np.testing.assert_array_equal(shallow["embed"]["table"], deep["embed"]["table"])
    np.testing.assert_array_equal(shallow["layers"]["mlp"]["up"]["kernel"], deep["layers"]["mlp"]["up"]["kernel"][:2])
    kernels = [np.asarray(deep["layers"]["attention"][n]["kernel"]).ravel() for n in ("query", "key", "value")]
    assert np.abs(np.corrcoef(kernels) - np.eye(3)).max() < 0.2  # drawn from different keys
    assert np.abs(np.corrcoef(np.asarray(deep["layers"]["mlp"]["up"]["kernel"]).reshape(3, -1)) - np.eye(3)).max() < 0.2


def test_flops_equal_what_the_compiler_counts():
    config = make(layers=1, vocab=64, width=32, heads=2)
    params = jax.tree.map(jnp.float32, drawn(config))
    tokens = np.zeros((4, 64), np.int32)
    counted = jax.jit(lambda p: model.apply(config, p, tokens)[0]).lower(params).compile().cost_analysis()["flops"] / tokens.size
    full = model.flops(config, 64, "full")
    assert full < counted < 1.25 * full  # the compiler also counts norms, rope and softmax
    assert model.flops(config, 64) < full


@struct.dataclass
class Rounded:
    """A weight leaf of int8 codes with a scale: stands for any leaf type that is not an array."""

    codes: jax.Array
    scale: jax.Array

    def einsum(self, equation, x):
        return jnp.einsum(equation, x, self.codes.astype(x.dtype) * self.scale.astype(x.dtype))


@pytest.mark.parametrize("scan", [False, True])
def test_the_matmul_seam_takes_other_leaf_types_through_scan_and_vmap(scan):
    config = make(scan_layers=scan)
    params = jax.tree.map(jnp.float32, drawn(config))

    def quantise(path, w):
        if path[-1].key != "kernel" or path[0].key != "layers":
            return w
        scale = jnp.abs(w).max(axis=tuple(range(1, w.ndim)), keepdims=True) / 127
        return Rounded(jnp.round(w / scale).astype(jnp.int8), scale)

    rounded = jax.tree.map_with_path(quantise, params)
    tokens = np.arange(10).reshape(2, 5)
    exact, got = apply(config, params, tokens)[0], apply(config, rounded, tokens)[0]
    assert 0 < np.abs(got - exact).max() < 0.1 * np.abs(exact).max()
    pair = jax.tree.map(lambda a: jnp.stack([a, a]), rounded)
    both = jax.vmap(lambda p: model.apply(config, p, tokens)[0])(pair)
    np.testing.assert_allclose(both[1], got, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 30, "heads": 4}, r"model.width = 30: not divisible by model.heads = 4; use model.heads = 3"),
        ({"heads": 4, "kv_heads": 3}, r"model.kv_heads = 3: must divide model.heads = 4"),
        ({"heads": 2, "head_dim": 7}, r"model.head_dim = 7: rotary positions need an even head dim"),
    ],
)
def test_impossible_sizes(fields, message):
    with pytest.raises(ConfigError, match=message):
        make(**fields)
