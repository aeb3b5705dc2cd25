"""A Llama-style decoder: the model contract of this laboratory.

A model file exports `Config`, `init(config, key)`, `axes(config)`, `apply(config, params, batch, cache,
capture)`, `flops(config, tokens)`, `parameters(config)` and, if text is to be sampled, `start_cache`.
Parameters are plain nested dicts; every leaf below `layers` carries a leading layer axis. Dims: B batch, T time,
S columns of a cache, D width, V vocabulary, L layers.
"""

import dataclasses
import functools
import operator
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict

from scaling_jax.models.initial import Weight, draw
from scaling_jax.models.layers import MLP, Attention, AttentionMask, Einsum, RMSNorm, matmul
from scaling_jax.records import ConfigError, field

CAUSAL = AttentionMask()
DTYPES = ("float32", "bfloat16", "float64")


@dataclass(frozen=True)
class Config:
    """Sizes and switches of the decoder."""

    name: str = field("transformer", doc="model file, or package.module of your own")
    vocab: int | None = field(None, at_least=2, doc="None: the corpus's own")
    width: int = field(64, at_least=1, doc="D, the residual stream")
    layers: int = field(2, at_least=1)
    heads: int = field(4, at_least=1)
    kv_heads: int | None = field(None, at_least=1, doc="None: as many as heads")
    head_dim: int | None = field(None, at_least=2, doc="None: width / heads")
    mlp: str = field("swiglu", choices=("swiglu", "gelu"))
    mlp_width: int | None = field(None, at_least=1, doc="None: 8/3 width for swiglu (rounded up to 8), 4 width for gelu")
    tie_head: bool = field(False, doc="the head is the transposed embedding")
    qk_norm: bool = field(False)
    rope_theta: float = field(10_000.0, above=0.0)
    norm_epsilon: float = field(1e-6, above=0.0)
    embedding_scale: float = field(0.02, above=0.0, doc="standard deviation of the embedding at start")
    dtype: str = field("float32", choices=DTYPES, doc="compute dtype; parameters stay float32")
    head_dtype: str = field("float32", choices=DTYPES, doc="dtype of the final matmul")
    scan_layers: bool = field(False, recorded=True, doc="lax.scan over layers: flat compile time, slower steps on CPU")
    remat: bool = field(False, recorded=True, doc="recompute each layer in the backward pass")

    def __post_init__(self):
        if self.head_dim is None and self.width % self.heads:
            near = [h for h in range(1, self.width + 1) if self.width % h == 0]
            near = min(near, key=lambda h: abs(h - self.heads))
            raise ConfigError(
                f"model.width = {self.width}: not divisible by model.heads = {self.heads}; use model.heads = {near}, or set model.head_dim"
            )
        if self.heads % self.kv:
            raise ConfigError(f"model.kv_heads = {self.kv}: must divide model.heads = {self.heads}")
        if self.channels % 2:
            raise ConfigError(
                f"model.head_dim = {self.channels}: rotary positions need an even head dim; change model.width, model.heads or model.head_dim"
            )

    @property
    def kv(self):
        """Key-value heads."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def channels(self):
        """C, the head dim."""
        return self.width // self.heads if self.head_dim is None else self.head_dim

    @property
    def hidden(self):
        """F, the mlp width."""
        if self.mlp_width is not None:
            return self.mlp_width
        return -(-8 * self.width // 24) * 8 if self.mlp == "swiglu" else 4 * self.width


@dataclass(frozen=True)
class Parameters:
    """Parameter counts; every law says which one its N is."""

    body: int
    embedding: int
    total: int
    active: int


class Block(nn.Module):
    """x + attention(norm x), then x + mlp(norm x): `(x, cache) -> (x, cache, aux)`."""

    config: Config

    @nn.compact
    def __call__(self, x_BTD, cache=None, positions_BT=None, mask=CAUSAL):
        c = self.config
        if positions_BT is None:
            positions_BT = jnp.arange(x_BTD.shape[1])[None]
        shrink = (2 * c.layers) ** -0.5  # keeps the residual stream's variance flat in depth (GPT-2)
        norm = lambda name: RMSNorm(c.width, c.norm_epsilon, name=name)
        heads = Attention(c.width, c.heads, c.kv, c.channels, c.rope_theta, c.norm_epsilon, c.qk_norm, shrink, name="attention")
        y_BTD, cache = heads(norm("attention_norm")(x_BTD), cache, positions_BT, mask)
        x_BTD = x_BTD + y_BTD
        x_BTD = x_BTD + MLP(c.width, c.hidden, c.mlp, shrink, name="mlp")(norm("mlp_norm")(x_BTD))
        return x_BTD, cache, {}


@functools.cache
def _declared(config):
    """Every weight by path, as `initial.Weight` records of shapes: {(name, ...): Weight}; layers are declared once."""
    if config.vocab is None:
        raise ConfigError("model.vocab = None: not yet bound to a corpus; set model.vocab, or bind the config to its corpus first")
    x_BTD = jax.ShapeDtypeStruct((1, 2, config.width), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    table = jax.ShapeDtypeStruct((config.vocab, config.width), jnp.float32)
    tree = {"embed": {"table": Weight(table, ("vocab", "embed"), deviation=config.embedding_scale)}}
    modules = {"layers": Block(config), "final_norm": RMSNorm(config.width, config.norm_epsilon)}
    if not config.tie_head:
        modules["head"] = Einsum("btd,dv->btv", (config.width, config.vocab), ("embed", "vocab"), config.width)
    tree |= {name: jax.eval_shape(module.init, key, x_BTD)["params"] for name, module in modules.items()}
    leaves = jax.tree.leaves_with_path(tree, is_leaf=lambda leaf: isinstance(leaf, Weight))
    return {tuple(p.key for p in path): leaf for path, leaf in leaves}


def init(config, key):
    """Random parameters: nested dict of float32 arrays, drawn independently of mesh, loop and each other."""
    depth = lambda path: config.layers if path[0] == "layers" else None
    return unflatten_dict({path: draw(key, "/".join(path), w, depth(path)) for path, w in _declared(config).items()})


def axes(config):
    """Logical axes of every parameter: the tree of `init` with tuples of names for arrays, "layer" first."""
    layer = lambda path: ("layer",) if path[0] == "layers" else ()
    return unflatten_dict({path: (*layer(path), *w.names) for path, w in _declared(config).items()})


def start_cache(config, batch, length, padding_B=None):
    """An empty key-value cache of `length` columns, one per token of a row, for `apply` to fill from the left.

    Args:
      padding_B: columns at the left of each row that hold no text: rows of unequal length end together. Tokens there count
        for nothing; a row's positions start behind them. None: no row has any.
    Returns:
      {"layers": {"key", "value"}, "length": columns filled, "padding": int32 [B]}. Keys and values are [L, batch, length, K, C] where
      layers are scanned, else a tuple of L pairs without the leading axis, which XLA fills in place.
    """
    empty = lambda *lead: {name: jnp.zeros((*lead, batch, length, config.kv, config.channels), config.dtype) for name in ("key", "value")}
    layers = empty(config.layers) if config.scan_layers else tuple(empty() for _ in range(config.layers))
    padding_B = jnp.zeros(batch, jnp.int32) if padding_B is None else jnp.asarray(padding_B, jnp.int32)
    return {"layers": layers, "length": jnp.int32(0), "padding": padding_B}


def apply(config, params, tokens_BT, cache=None, capture=()):
    """Logits of the next token at every position.

    Args:
      tokens_BT: integers below vocab.
      cache: from `start_cache`; the tokens continue what it holds, one or many at a time. None: they start the text.
        Beyond the cache's last column all logits are nan.
      capture: names of activations wanted in aux; "residual" is the stream after every layer, [L, B, T, D].
    Returns:
      (logits_BTV in head_dtype, aux); aux holds what was captured, and "cache" when one was given.
    """
    dtype = jnp.dtype(config.dtype)
    T = tokens_BT.shape[1]
    positions_BT, mask = (jnp.arange(T)[None], AttentionMask()) if cache is None else _continued(cache, T)
    x_BTD = params["embed"]["table"][tokens_BT].astype(dtype)
    if cache is not None:  # a write beyond the last column would land on it: what cannot be right is not a number
        x_BTD = jnp.where(cache["length"] + T <= _columns(cache), x_BTD, jnp.nan)

    def layer(x_BTD, weights, kv):
        kv = None if kv is None else kv | {"length": cache["length"]}
        x_BTD, kv, _ = Block(config).apply({"params": weights}, x_BTD, kv, positions_BT, mask)
        return x_BTD, None if kv is None else {name: kv[name] for name in ("key", "value")}

    x_BTD, residual, kv = _through_layers(config, layer, x_BTD, params["layers"], cache, "residual" in capture)
    aux = {"residual": residual} if "residual" in capture else {}
    if cache is not None:
        aux["cache"] = cache | {"layers": kv, "length": cache["length"] + T}
    x_BTD = RMSNorm(config.width, config.norm_epsilon).apply({"params": params["final_norm"]}, x_BTD).astype(config.head_dtype)
    if config.tie_head:
        return matmul("btd,vd->btv", x_BTD, params["embed"]["table"]), aux
    return matmul("btd,dv->btv", x_BTD, params["head"]["kernel"]), aux


def _continued(cache, T):
    """Positions [B, T] of tokens that continue `cache`, and the mask by which they see its columns and each other."""
    if T > _columns(cache):
        raise ConfigError(f"cache = {_columns(cache)} columns: {T} tokens do not fit; start_cache(length={T}) or more")
    positions_BT = cache["length"] + jnp.arange(T)[None] - cache["padding"][:, None]
    key_positions_BS = jnp.arange(_columns(cache))[None] - cache["padding"][:, None]
    key_positions_BS = jnp.where(key_positions_BS < 0, jnp.iinfo(jnp.int32).max // 2, key_positions_BS)  # padding lies after every query
    positions_BT = jnp.maximum(positions_BT, 0)
    return positions_BT, AttentionMask(positions_BT=positions_BT, key_positions_BS=key_positions_BS)


def _columns(cache):
    return jax.tree.leaves(cache["layers"])[0].shape[-3]


def _through_layers(config, layer, x_BTD, weights, cache, keep):
    """(x, residual [L, B, T, D] if `keep`, the layers' keys and values) after `layer(x, weights, kv) -> (x, kv)` of every layer."""
    layer = jax.checkpoint(layer) if config.remat else layer
    if not config.scan_layers:
        kept, kvs = [], []
        for i in range(config.layers):
            kv = None if cache is None else cache["layers"][i]
            x_BTD, kv = layer(x_BTD, jax.tree.map(operator.itemgetter(i), weights), kv)
            kept, kvs = [*kept, x_BTD], [*kvs, kv]
        return x_BTD, jnp.stack(kept) if keep else None, tuple(kvs)

    def scanned(carry, inputs):
        (x_BTD, kvs), (i, weights) = carry, inputs
        kv = jax.tree.map(lambda whole: jax.lax.dynamic_index_in_dim(whole, i, keepdims=False), kvs)
        x_BTD, kv = layer(x_BTD, weights, kv)
        if kv is not None:  # only the new columns go back: as outputs of the scan, all columns would be copied
            begin, T = cache["length"], x_BTD.shape[1]
            back = lambda whole, one: jax.lax.dynamic_update_slice(
                whole, jax.lax.dynamic_slice_in_dim(one, begin, T, axis=1)[None], (i, 0, begin, 0, 0)
            )
            kvs = jax.tree.map(back, kvs, kv)
        return (x_BTD, kvs), x_BTD if keep else None

    start = (x_BTD, None if cache is None else cache["layers"])
    (x_BTD, kvs), residual = jax.lax.scan(scanned, start, (jnp.arange(config.layers), weights))
    return x_BTD, residual, kvs


def parameters(config):
    """Parameter counts without making an array: body (layers and final norm), embedding (with an untied head), total, active."""
    sizes = {"embed": 0, "head": 0, "body": 0}
    for (first, *_), w in _declared(dataclasses.replace(config, vocab=config.vocab or 2)).items():
        sizes[first if first in sizes else "body"] += w.value.size * (config.layers if first == "layers" else 1)
    embedding = sizes["embed"] + sizes["head"]
    total = embedding + sizes["body"]
    return Parameters(body=sizes["body"], embedding=embedding, total=total, active=total)


def flops(config, sequence, convention="causal_half"):
    """Floating-point operations of one forward pass per token (a multiply-add is 2); a training step costs 3 times that.

    matmuls: 2 x (weights in matmuls). attention scores and values: 4 H C x (keys seen per query), where
    `causal_half` counts the (sequence + 1) / 2 keys a causal query really sees and `full` counts all `sequence`
    (the convention of most published MFU figures; PaLM, arXiv:2204.02311, appendix B).
    """
    keys = {"causal_half": (sequence + 1) / 2, "full": sequence}[convention]
    c = dataclasses.replace(config, vocab=config.vocab or 2)
    kv = 2 * c.width * c.kv * c.channels
    mlp = (3 if c.mlp == "swiglu" else 2) * c.width * c.hidden
    weights = c.layers * (2 * c.width * c.heads * c.channels + kv + mlp) + c.width * c.vocab
    return 2 * weights + 4 * c.layers * c.heads * c.channels * keys
