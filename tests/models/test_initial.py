"""Starting weights: the counter hash against plain integers, the normal against SciPy, and what no draw may depend on."""

import functools
import hashlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from scaling_jax.models import initial

MASK = 2**32 - 1
ROOT2 = np.sqrt(2.0)


def declared(shape, deviation=1.0, mean=0.0):
    axes = tuple(f"axis{i}" for i in range(len(shape)))
    return initial.Weight(jax.ShapeDtypeStruct(shape, jnp.float32), axes, mean=mean, deviation=deviation)


def draw(shape, path="w", seed=0, layers=None, **spread):
    return np.asarray(initial.draw(jax.random.key(seed), path, declared(shape, **spread), layers))


def mix(h):
    """lowbias32 in Python's integers."""
    h ^= h >> 16
    h = h * 0x7FEB352D & MASK
    h ^= h >> 15
    h = h * 0x846CA68B & MASK
    return h ^ h >> 16


def unmix(h):
    """Its inverse: modular inverses of the factors, shifts undone; that it exists makes `mix` a bijection."""
    h ^= h >> 16
    h = h * pow(0x846CA68B, -1, 2**32) & MASK
    h ^= h >> 15 ^ h >> 30
    h = h * pow(0x7FEB352D, -1, 2**32) & MASK
    return h ^ h >> 16


def naive_bits(words, path, shape, layered):
    golden = 0x9E3779B9
    h = int.from_bytes(hashlib.sha256(f"{path}:{shape[1:] if layered else shape}".encode()).digest()[:4], "little")
    for word in words:
        h = mix(h ^ mix(word + golden & MASK))
    out = np.zeros(shape, np.uint32)
    for index in itertools.product(*map(range, shape)):
        value = h
        for i in index:
            value = mix(value + (i + 1) * golden & MASK)
        out[index] = value
    return out


def test_mix_is_a_bijection():
    values = np.random.default_rng(0).integers(0, 2**32, 2000, dtype=np.uint32)
    got = np.asarray(initial.mix(jnp.asarray(values)))
    np.testing.assert_array_equal(got, [mix(int(v)) for v in values])
    np.testing.assert_array_equal([unmix(int(v)) for v in got], values)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.text(max_size=12), st.sampled_from([(5,), (3, 4), (2, 3, 2)]), st.booleans())
def test_bits_equal_plain_integers(seed, path, shape, layered):
    key = jax.random.key(seed)
    words = [int(w) for w in np.asarray(jax.random.key_data(key)).ravel()]
    np.testing.assert_array_equal(initial.bits(key, path, shape, layered), naive_bits(words, path, shape, layered))


def test_values_are_pinned():
    """Every trained run starts from these; another value is another laboratory."""
    assert np.asarray(initial.bits(jax.random.key(7), "layers/mlp/up/kernel", (2, 2))).tolist() == BITS
    np.testing.assert_allclose(draw((2, 3), "layers/mlp/up/kernel", 7, deviation=0.5, mean=1.0), VALUES, rtol=1e-6)


BITS = [[3946216487, 2546085432], [3914614611, 3117825736]]
VALUES = [[1.3149981, 1.7703929, 1.0899293], [0.95824087, 0.30093575, 0.13572443]]


# --- the distribution ----------------------------------------------------------------------------------------------


@functools.cache
def sample():
    return draw((512, 256))


def test_normal():
    x = sample().ravel().astype(np.float64)
    n = x.size
    assert stats.kstest(x, "norm").pvalue > 1e-3
    moments = [x.mean(), x.var(), stats.skew(x), stats.kurtosis(x)]
    sigmas = np.array(moments - np.array([0, 1, 0, 0])) / np.sqrt(np.array([1, 2, 6, 24]) / n)
    assert np.abs(sigmas).max() < 4.5
    assert 4.0 < np.abs(x).max() < stats.norm.isf(1e-9)  # the tails are there


def test_every_bit_is_fair():
    bits = np.asarray(initial.bits(jax.random.key(0), "w", (512, 256))).ravel()
    ones = np.array([(bits >> i & 1).mean() for i in range(32)])
    assert np.abs(ones - 0.5).max() * 2 * np.sqrt(bits.size) < 4.5
    pairs = np.corrcoef([(bits >> i & 1) for i in range(32)]) - np.eye(32)
    assert np.abs(pairs).max() * np.sqrt(bits.size) < 5


def test_draws_are_the_quantiles_of_the_bits():
    bits = np.asarray(initial.bits(jax.random.key(0), "w", (512, 256)))
    u = ((bits >> 8) + 0.5) / 2**23 - 1
    np.testing.assert_allclose(sample(), ROOT2 * special.erfinv(u), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("word", [0, 2**32 - 1, 2**31, 2**31 - 1])
def test_no_bits_give_an_infinite_weight(word, monkeypatch):
    """Of 16 million weights one meets the last of the 2^24 midpoints; u must not round to 1 there."""
    monkeypatch.setattr(initial, "bits", lambda key, path, shape, layered: jnp.full(shape, word, jnp.uint32))
    want = ROOT2 * special.erfinv(((word >> 8) + 0.5) / 2**23 - 1)
    np.testing.assert_allclose(draw((2,)), want, rtol=1e-5)
    assert np.isfinite(want)


def test_mean_and_deviation():
    np.testing.assert_allclose(draw((512, 256), deviation=0.25, mean=3.0), 3.0 + 0.25 * sample(), rtol=1e-6)
    np.testing.assert_array_equal(draw((4, 3), deviation=0.0, mean=1.0, layers=2), np.ones((2, 4, 3), np.float32))
    assert draw((4, 3)).dtype == np.float32


# --- independence --------------------------------------------------------------------------------------------------


def test_draws_are_unrelated():
    """Seeds, paths, layers, and shifted rows and columns of one weight: no correlation, linear or of sizes."""
    shape = (64, 64)
    others = [draw(shape, seed=1), draw(shape, "v"), draw(shape, "w/w"), draw((64, 65))[:, :64], *draw(shape, layers=3)]
    base = draw(shape)
    others += [np.roll(base, 1, axis=0), np.roll(base, 1, axis=1), base.T.copy(), base[::-1]]
    every = np.stack([base, *others]).reshape(1 + len(others), -1)
    off = ~np.eye(len(every), dtype=bool)
    off[0, -2] = off[-2, 0] = False  # a matrix and its transpose share the diagonal
    for values in (every, np.abs(every)):
        assert np.abs(np.corrcoef(values)[off]).max() * np.sqrt(base.size) < 5
    assert all(len(np.unique(values)) > 4000 for values in every)


def test_depth_changes_no_layer():
    deep = draw((8, 5), layers=6)
    np.testing.assert_array_equal(draw((8, 5), layers=2), deep[:2])
    assert deep.shape == (6, 8, 5)


def test_the_shape_is_part_of_the_draw():
    assert not np.array_equal(draw((8, 5)), draw((8, 6))[:, :5])
    assert not np.array_equal(draw((8, 5)).ravel(), draw((5, 8)).ravel())


def test_compilation_and_members_change_no_bit():
    shape, seeds = (3, 8, 4), (0, 5, 9)
    bits = lambda seed: initial.bits(jax.random.key(seed), "w", shape)
    lone = np.stack([bits(seed) for seed in seeds])
    np.testing.assert_array_equal(jax.jit(jax.vmap(bits))(jnp.array(seeds)), lone)
    np.testing.assert_array_equal(jax.jit(lambda s: jax.lax.map(bits, s))(jnp.array(seeds)), lone)
    assert len(np.unique(lone)) == lone.size
    values = lambda seed: initial.draw(jax.random.key(seed), "w", declared((8, 4)), 3)
    np.testing.assert_allclose(jax.jit(jax.vmap(values))(jnp.array(seeds)), np.stack([values(s) for s in seeds]), rtol=1e-6)
