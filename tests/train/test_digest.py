"""Digests of arrays: against NumPy, one flipped bit at a time, and on every layout."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_jax.train import digest

WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def by_hand(x):
    """The definition, in Python's integers."""

    def mix(v):
        v = ((v ^ (v >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
        v = ((v ^ (v >> 15)) * 0x846CA68B) & 0xFFFFFFFF
        return v ^ (v >> 16)

    words = np.ascontiguousarray(x).view(WORDS[x.dtype.itemsize]).ravel().tolist()
    sums = [sum(mix(w ^ mix((i + salt) & 0xFFFFFFFF)) for i, w in enumerate(words)) & 0xFFFFFFFF for salt in digest.SALTS]
    return "".join(f"{one:08x}" for one in sums)


def sums(x):
    return digest.of_tree({"x": x})["x"].split(" ")[1]


@pytest.mark.parametrize(
    "dtype", ["float32", "int32", "uint32", "float16", "int16", "uint8", "int8", "bool", *("bfloat16", "float8_e4m3fn")]
)
def test_it_is_its_definition(dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 5, 7)) * 3
    x = (x > 0) if dtype == "bool" else x.astype(getattr(ml_dtypes, dtype, None) or dtype)
    assert sums(x) == sums(jnp.asarray(x)) == by_hand(x)
    assert digest.of_tree({"a": {"b": x}}) == {"a/b": f"{dtype}[3,5,7] {by_hand(x)}"}


@settings(max_examples=60)
@given(st.integers(0, 11), st.integers(0, 31), st.integers(0, 2**32 - 1))
def test_one_flipped_bit_changes_both_sums(place, bit, seed):
    words = np.random.default_rng(seed).integers(0, 2**32, 12, dtype=np.uint32)
    other = words.copy()
    other[place] ^= np.uint32(1 << bit)
    one, two = sums(words.reshape(3, 4)), sums(other.reshape(3, 4))
    assert one[:8] != two[:8] and one[8:] != two[8:]


def test_places_types_shapes_and_names_count():
    x = np.arange(6, dtype=np.float32)
    plain = digest.of_tree({"x": x})
    assert plain != digest.of_tree({"x": x[::-1].copy()})
    assert plain != digest.of_tree({"x": x.reshape(2, 3)})
    assert plain != digest.of_tree({"x": x.view(np.int32)})
    assert digest.differing(plain, digest.of_tree({"y": x})) == ["x", "y"]
    assert digest.differing(plain, digest.of_tree({"x": x})) == []
    assert sums(np.float32(-0.0)) != sums(np.float32(0.0)), "bits, not values"


def test_keys_and_small_integers_have_digests():
    key = jax.random.key(3)
    assert sums(key) != sums(jax.random.key(4))
    four = jnp.arange(-8, 8).astype(jnp.int4)
    assert sums(four) != sums(four[::-1])


def test_it_is_the_same_on_every_mesh():
    code = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from scaling_jax.train import digest
x = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)
out = {digest.of_tree({"x": x})["x"]}
for shape, spec in (((8, 1), P("a", None)), ((1, 8), P(None, "b")), ((2, 4), P("a", "b")), ((4, 2), P(("a", "b"), None))):
    mesh = Mesh(np.array(jax.devices()).reshape(shape), ("a", "b"))
    y = jax.device_put(x, NamedSharding(mesh, spec))
    out.add(digest.of_tree({"x": y})["x"])
    text = jax.jit(digest._leaf).lower(y).compile().as_text()
    assert "all-reduce" in text and "all-gather" not in text, spec
assert len(out) == 1, out
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=None)
    assert done.returncode == 0, done.stderr[-2000:]
