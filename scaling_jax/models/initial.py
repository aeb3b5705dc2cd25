"""Starting weights as a hash of (key, path, index): no draw depends on mesh, loop, depth or other weights.

A weight is declared with its logical axes and spread (`weight`), and drawn elementwise by `draw`. jax.random would
do, but a threefry program per weight costs seconds to compile on a CPU, and its normals changed between jax
releases; a counter hash is one fused loop, shards like any elementwise function, and its bits never change.
"""

import hashlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct


@struct.dataclass
class Weight(nn.LogicallyPartitioned):
    """A declared weight: logical axis names and how it starts, N(mean, deviation^2)."""

    mean: float = struct.field(pytree_node=False, default=0.0)
    deviation: float = struct.field(pytree_node=False, default=0.0)


def weight(module, name, shape, axes, deviation=0.0, mean=0.0):
    """Declares, or when applied reads, the float32 weight `name` of a Linen module."""
    if module.is_initializing():
        start = lambda key, shape: Weight(jnp.zeros(shape, jnp.float32), axes, mean=mean, deviation=deviation)
        return module.param(name, start, shape)
    return module.get_variable("params", name)  # no shape check: the leaf may be quantised or packed


def draw(key, path, declared, layers=None):
    """Values of one declared weight: mean + deviation x standard normal, float32, with a leading axis of `layers` if given.

    The normal is sqrt(2) erfinv(u), u uniform on 2^24 midpoints of (-1, 1) from `bits`.
    """
    shape = declared.value.shape if layers is None else (layers, *declared.value.shape)
    if not declared.deviation:
        return jnp.full(shape, declared.mean, jnp.float32)
    odd = 2 * (bits(key, path, shape, layers is not None) >> 8).astype(jnp.int32) + (1 - 2**24)
    u = odd.astype(jnp.float32) * 2.0**-24  # exact: adding a half to a float32 rounds, up to u = 1 and an infinite weight
    return declared.mean + declared.deviation * np.float32(np.sqrt(2)) * jax.lax.erf_inv(u)


def bits(key, path, shape, layered=False):
    """32 random bits per element: h <- mix(h + (index_d + 1) c) over the dims, from h = hash(key, path, shape).

    `layered`: the first dim is the layer, whose number is left out of the hash so that depth changes no layer.
    """
    words = jax.random.key_data(key).astype(jnp.uint32).ravel()
    text = f"{path}:{shape[1:] if layered else shape}"
    h = jnp.uint32(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little"))
    for word in (words[i] for i in range(words.shape[0])):
        h = mix(h ^ mix(word + jnp.uint32(0x9E3779B9)))
    h = jnp.broadcast_to(h, shape)
    for dim in range(len(shape)):
        h = mix(h + (jax.lax.broadcasted_iota(jnp.uint32, shape, dim) + jnp.uint32(1)) * jnp.uint32(0x9E3779B9))
    return h


def mix(h):
    """A bijection on 32 bits in which every input bit moves every output bit (lowbias32, C. Wellons)."""
    h = h ^ (h >> 16)
    h = h * jnp.uint32(0x7FEB352D)
    h = h ^ (h >> 15)
    h = h * jnp.uint32(0x846CA68B)
    return h ^ (h >> 16)
