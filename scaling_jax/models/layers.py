"""Layers of decoder models, and the two seams every matmul and every attention goes through.

Dims: B batch, T query time, S key time, D width, H query heads, K key-value heads, G = H / K query
heads per key-value head, C head dim, F mlp width, V vocabulary.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from scaling_jax.models.initial import weight

NEGATIVE = -1e30  # finite, so that a fully masked row gives a uniform softmax and not NaN


def matmul(equation, x, w):
    """einsum(equation, x, w) in the dtype of x: the seam where a weight leaf chooses its own product.

    A leaf that is not a plain array (fake-quantised, packed) brings its own `einsum(equation, x)`.
    """
    if hasattr(w, "einsum"):
        return w.einsum(equation, x)
    return jnp.einsum(equation, x, w.astype(x.dtype))


@struct.dataclass
class AttentionMask:
    """Which keys a query may see; a pytree, made dense only by the reference attention.

    kind: "causal" or "full". window: a query sees this many keys, its own the last; None means all. positions_BT and
    key_positions_BS: absolute positions (None: 0, 1, ...). segments_BT, key_segments_BS: document
    numbers, a query sees its own document only (None: one document).
    """

    kind: str = struct.field(pytree_node=False, default="causal")
    window: int | None = struct.field(pytree_node=False, default=None)
    positions_BT: jax.Array | None = None
    key_positions_BS: jax.Array | None = None
    segments_BT: jax.Array | None = None
    key_segments_BS: jax.Array | None = None

    def dense(self, T, S):
        """Boolean [B or 1, T, S]: True where attention is allowed."""
        t = jnp.arange(T)[None] if self.positions_BT is None else self.positions_BT
        s = jnp.arange(S)[None] if self.key_positions_BS is None else self.key_positions_BS
        back = t[:, :, None] - s[:, None, :]
        allowed = jnp.ones_like(back, bool) if self.kind == "full" else back >= 0
        if self.window is not None:
            allowed &= back < self.window
        if self.segments_BT is not None:
            keys = self.segments_BT if self.key_segments_BS is None else self.key_segments_BS
            allowed &= self.segments_BT[:, :, None] == keys[:, None, :]
        return allowed


def attention(q_BTHC, k_BSKC, v_BSKC, mask):
    """softmax(q k^T / sqrt(C) + mask) v, float32 softmax, each key-value head shared by G query heads.

    Reference: Vaswani et al., arXiv:1706.03762; grouped queries, arXiv:2305.13245.
    """
    B, T, H, C = q_BTHC.shape
    S, K = k_BSKC.shape[1:3]
    q_BTKGC = q_BTHC.reshape(B, T, K, H // K, C)
    scores = jnp.einsum("btkgc,bskc->bkgts", q_BTKGC, k_BSKC, preferred_element_type=jnp.float32) * C**-0.5
    scores = jnp.where(mask.dense(T, S)[:, None, None], scores, NEGATIVE)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BSKC.dtype)
    return jnp.einsum("bkgts,bskc->btkgc", weights, v_BSKC).reshape(B, T, H, C)


def rope(x_BTHC, positions_BT, theta):
    """Rotary position embedding on half-split pairs: angle = position * theta^(-2i/C) (arXiv:2104.09864), float32 inside."""
    half = x_BTHC.shape[-1] // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions_BT[..., None, None].astype(jnp.float32) * frequency[None, None, None, :]
    a, b = jnp.split(x_BTHC.astype(jnp.float32), 2, axis=-1)
    out = jnp.concatenate([a * jnp.cos(angle) - b * jnp.sin(angle), b * jnp.cos(angle) + a * jnp.sin(angle)], axis=-1)
    return out.astype(x_BTHC.dtype)


class Einsum(nn.Module):
    """One weight `kernel`, applied as matmul(equation, x, kernel); `axes` are its logical axes.

    `fan_in` counts the summed entries: the kernel starts normal with standard deviation scale / sqrt(fan_in).
    """

    equation: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    fan_in: int
    scale: float = 1.0

    @nn.compact
    def __call__(self, x):
        w = weight(self, "kernel", self.shape, self.axes, deviation=self.scale * self.fan_in**-0.5)
        return matmul(self.equation, x, w)


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * scale, float32 inside (arXiv:1910.07467). `axis` names the normalised dim."""

    size: int
    epsilon: float
    axis: str = "norm"

    @nn.compact
    def __call__(self, x):
        scale = weight(self, "scale", (self.size,), (self.axis,), mean=1.0)
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.epsilon)
        return (y * scale.reshape((1,) * (y.ndim - 1) + (-1,))).astype(x.dtype)


class Attention(nn.Module):
    """Causal self-attention with rotary positions, grouped key-value heads and optional QK-norm (arXiv:2302.05442)."""

    width: int
    heads: int
    kv_heads: int
    head_dim: int
    theta: float
    epsilon: float
    qk_norm: bool
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, x_BTD, cache, positions_BT, mask):
        D, H, K, C = self.width, self.heads, self.kv_heads, self.head_dim
        q_BTHC = Einsum("btd,dhc->bthc", (D, H, C), ("embed", "heads", "head_dim"), D, name="query")(x_BTD)
        k_BTKC = Einsum("btd,dkc->btkc", (D, K, C), ("embed", "kv_heads", "head_dim"), D, name="key")(x_BTD)
        v_BTKC = Einsum("btd,dkc->btkc", (D, K, C), ("embed", "kv_heads", "head_dim"), D, name="value")(x_BTD)
        if self.qk_norm:
            q_BTHC = RMSNorm(C, self.epsilon, "head_dim", name="query_norm")(q_BTHC)
            k_BTKC = RMSNorm(C, self.epsilon, "head_dim", name="key_norm")(k_BTKC)
        q_BTHC, k_BTKC = (rope(a, positions_BT, self.theta) for a in (q_BTHC, k_BTKC))
        if cache is not None:  # {"key", "value"} [B, S, K, C], filled up to "length"; decoding writes behind it
            start = (0, cache["length"], 0, 0)
            k_BTKC = jax.lax.dynamic_update_slice(cache["key"], k_BTKC.astype(cache["key"].dtype), start)
            v_BTKC = jax.lax.dynamic_update_slice(cache["value"], v_BTKC.astype(cache["value"].dtype), start)
            cache = {"key": k_BTKC, "value": v_BTKC, "length": cache["length"] + x_BTD.shape[1]}
        out_BTHC = attention(q_BTHC, k_BTKC, v_BTKC, mask)
        output = Einsum("bthc,hcd->btd", (H, C, D), ("heads", "head_dim", "embed"), H * C, self.output_scale, name="output")
        return output(out_BTHC), cache


class MLP(nn.Module):
    """SwiGLU down(silu(gate x) * up x) (arXiv:2002.05202), or GELU down(gelu(up x))."""

    width: int
    mlp_width: int
    kind: str
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, x_BTD):
        D, F = self.width, self.mlp_width
        h_BTF = Einsum("btd,df->btf", (D, F), ("embed", "mlp"), D, name="up")(x_BTD)
        if self.kind == "swiglu":
            h_BTF = jax.nn.silu(Einsum("btd,df->btf", (D, F), ("embed", "mlp"), D, name="gate")(x_BTD)) * h_BTF
        else:
            h_BTF = jax.nn.gelu(h_BTF)
        return Einsum("btf,fd->btd", (F, D), ("mlp", "embed"), F, self.output_scale, name="down")(h_BTF)
