"""Digests of arrays: two 32-bit sums per leaf, computed where the leaf lives, equal on every mesh and topology.

    D_salt = sum_i mix(bits_i ^ mix(i + salt)) mod 2^32,  i: the element's place in the whole leaf in row-major order, mod 2^32

A sum does not depend on its order, so shards are summed where they are and only the sums travel. One flipped bit changes one term of both
sums, by an amount that is zero for neither: `mix` is a bijection. Orbax restores flipped bytes of a tensor file without a word; this is
what notices.
"""

import jax
import jax.numpy as jnp
import numpy as np

VERSION = 1  # of everything below: another mix is another version, and old checkpoints keep theirs
SALTS = (0x243F6A88, 0x85A308D3)  # the first digits of pi's fraction


def mix(x):
    """A bijection on uint32 whose every output bit depends on every input bit: Stafford's choice of constants for Murmur3's finaliser."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def of_tree(tree):
    """The digests of a tree's leaves: {"path/to/leaf": "float32[3,4] 0123abcd89ef4567"}, of arrays on the devices or in NumPy."""
    flat = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    sums = jax.device_get(_digests(list(flat.values())))
    return {
        name: f"{_kind(leaf)} {int(first):08x}{int(second):08x}" for (name, leaf), (first, second) in zip(flat.items(), sums, strict=True)
    }


def differing(saved, found):
    """Names of the leaves whose digests differ, or that only one side has, in order."""
    return sorted(name for name in {*saved, *found} if saved.get(name) != found.get(name))


def _kind(leaf):
    shape = ",".join(map(str, np.shape(leaf)))
    return f"{jnp.result_type(leaf).name}[{shape}]"


@jax.jit
def _digests(leaves):
    return [_leaf(jnp.asarray(leaf)) for leaf in leaves]


def _leaf(x):
    """The two sums of one leaf, uint32 [2]."""
    words = _bits(x)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):  # by coordinates, so that a sharded leaf needs no gather
        stride = int(np.prod(words.shape[axis + 1 :], dtype=np.int64)) % 2**32
        place += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * jnp.uint32(stride)
    return jnp.stack([mix(words ^ mix(place + jnp.uint32(salt))).sum(dtype=jnp.uint32) for salt in SALTS])


def _bits(x):
    """The bits of x as uint32; types of 8 bytes give two words along a last axis."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return _bits(jnp.stack([x.real, x.imag], -1))
    if x.dtype.itemsize == 8:
        return jax.lax.bitcast_convert_type(x, jnp.uint32)
    if x.dtype in (jnp.int4, jnp.uint4):  # packed two to a byte: each value is a word of its own
        x = x.astype(jnp.int8)
    word = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    return jax.lax.bitcast_convert_type(x, word).astype(jnp.uint32)
