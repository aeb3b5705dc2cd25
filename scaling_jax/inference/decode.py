"""Sampling text from a model: key-value cache, temperature, nucleus, stop; one jitted program, many rows, members or a team.

With z the logits of the next token after all tokens before it, T the temperature and P `top_p`:

p = softmax(z)                                the model
s = softmax(z / T)                            T = 0: all mass on the largest logit, the lowest id among equals
q = s 1[v in N] / sum_{u in N} s_u            N, the nucleus: the smallest set whose mass under s is at least P
                                              (Holtzman et al. 2020, arXiv:1904.09751, section 3.1); P = 1: every token
x = argmax_v log q_v + g_v                    g Gumbel noise of (key, row number, tokens drawn so far): x is drawn from q

Rows are padded at the left, so that all prompts end in one column: a step writes one column of the cache. Padding is hidden from
every query and positions start behind it. A row's noise depends on its number alone; that its logits were computed beside
others changes them by rounding only, and not at all while the shapes of the batch stay.
Dims: B rows, P prompt columns, N tokens drawn, K stop tokens, M models, V vocabulary.
"""

import functools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from scaling_jax import config as cfg
from scaling_jax.parallel import members
from scaling_jax.records import ConfigError

AVERAGES = ("logits", "probabilities")


@struct.dataclass
class Samples:
    """What was drawn after each prompt.

    tokens: int32 [B, N], -1 from `lengths` on. lengths: int32 [B], tokens drawn, those of `stop` included. stopped: bool [B], whether
    `stop` ended the row (False: cut at N). log_p, log_q: float32 [B, N], nats, log-probability of each token under
    the model (T = 1, all tokens) and under the distribution it was drawn from; 0 from `lengths` on. A model that diverged has nan there.
    """

    tokens: jax.Array
    lengths: jax.Array
    stopped: jax.Array
    log_p: jax.Array
    log_q: jax.Array


def sample(config, params, prompts, key, *, steps, temperature=1.0, top_p=1.0, stop=None, length=None, rows=None):
    """Draws up to `steps` tokens after every prompt, from one model.

    A pure function of (params, prompts, key, rows). Other prompts, keys, temperatures, top_p and stop tokens run the same program; other
    shapes (rows, longest prompt, steps, number of stop tokens, length) compile anew.

    Args:
      config: the model's Config, `run.model`. params: its parameters.
      prompts: token ids, [B, P] or B sequences of unequal length, none empty. key: a jax.random key.
      steps: N. temperature: 0 is greedy. top_p: in (0, 1], 1 is off.
      stop: a token id, or a sequence of ids that must be drawn one after the other (the prompt does not count); None: never.
      length: columns of the cache; None: as many as the longest prompt and `steps` need.
      rows: number of each row, integers [B], from which its noise comes; None: 0, 1, ... A corpus drawn in parts numbers its rows through.
    Returns:
      Samples.
    Raises:
      ConfigError naming field, value and remedy, before any device work.
    """
    shape, arguments = _checked(config, prompts, steps, temperature, top_p, stop, length, rows)
    return _program(config, *shape)(params, key, *arguments)


def sample_ensemble(
    config, models, prompts, key, *, average="logits", steps, temperature=1.0, top_p=1.0, stop=None, length=None, rows=None
):
    """Draws from a team of models that read the same text: z = mean_k z_k, or z = log mean_k softmax(z_k); else as `sample`.

    `average` is "logits" (arXiv:2509.14786) or "probabilities", as in `ensemble.team_losses`; log_p is the team's. models: a list of parameters.
    """
    if average not in AVERAGES:
        raise ConfigError(f"average = {average!r}: not one of {', '.join(map(repr, AVERAGES))}")
    if not models:
        raise ConfigError("models = []: a team needs at least one model")
    shape, arguments = _checked(config, prompts, steps, temperature, top_p, stop, length, rows)
    return _program(config, *shape, average)(list(models), key, *arguments)


def sample_members(config, models, prompts, keys, *, how="auto", steps, temperature=1.0, top_p=1.0, stop=None, length=None, rows=None):
    """One `Samples` per model, each from its own model alone and its own key: `sample` batched over members.

    models: a list of parameters of one config. keys: as many jax.random keys. how: "auto", "loop", "map" or "vmap", as in
    parallel.members; vmap computes until the last member has stopped.
    """
    if len(models) != len(keys) or not len(models):
        raise ConfigError(f"keys = {len(keys)} of them: {len(models)} models need one each, and at least one model")
    shape, arguments = _checked(config, prompts, steps, temperature, top_p, stop, length, rows)
    how = members.resolve(how)
    columns = [models, list(keys), *([argument] * len(models) for argument in arguments)]
    return members.split(_members_program(config, *shape, how)(*(members.gather(column, how) for column in columns)), how)


def left_pad(prompts):
    """(tokens int32 [B, P], padding int32 [B]) of B token sequences: zeros at the left, and how many; raises ConfigError on an empty one."""
    prompts = [np.asarray(prompt) for prompt in prompts]
    if not prompts:
        raise ConfigError("prompts = []: nothing to continue; give at least one prompt")
    for row, prompt in enumerate(prompts):
        if prompt.ndim != 1 or not prompt.size:
            raise ConfigError(f"prompts[{row}] = {prompt.tolist()}: expected one token or more; begin with the token that ends a document")
        if prompt.dtype.kind not in "iu":
            raise ConfigError(f"prompts[{row}] = {prompt.tolist()}: expected integers, token ids")
    longest = max(map(len, prompts))
    padding = np.array([longest - len(prompt) for prompt in prompts], np.int32)
    return np.stack([np.pad(prompt, (p, 0)) for prompt, p in zip(prompts, padding, strict=True)]), padding


def nucleus(probabilities, top_p):
    """Whether each token is in the smallest set of mass >= top_p, [..., V] bool; among equal probabilities lower ids go first.

    A token belongs to it when those before it, in falling order, hold less than `top_p`. Sums are float32: a set whose
    mass meets top_p to within about 1e-7 may keep one token more, or one less.
    """
    order = jnp.argsort(-probabilities, axis=-1, stable=True)
    falling = jnp.take_along_axis(probabilities, order, axis=-1)
    before = jnp.concatenate([jnp.zeros_like(falling[..., :1]), jnp.cumsum(falling, axis=-1)[..., :-1]], axis=-1)
    return jnp.put_along_axis(
        jnp.zeros(probabilities.shape, bool), order, before < jnp.maximum(top_p, jnp.finfo(jnp.float32).tiny), axis=-1, inplace=False
    )


def choose(logits_BV, keys_B, temperature, top_p):
    """(token, log_p, log_q) [B] of one draw per row: the equations at the head of this file, float32."""
    z_BV = logits_BV.astype(jnp.float32)
    greedy = temperature < jnp.finfo(jnp.float32).tiny  # below it a division may flush to 0 / 0
    scaled_BV = (z_BV - z_BV.max(axis=-1, keepdims=True)) / jnp.where(greedy, 1.0, temperature)
    log_q_BV = jax.nn.log_softmax(scaled_BV)
    cut = lambda log_s_BV: jax.nn.log_softmax(jnp.where(nucleus(jnp.exp(log_s_BV), top_p), log_s_BV, -jnp.inf))
    log_q_BV = jax.lax.cond(top_p < 1, cut, lambda log_s_BV: log_s_BV, log_q_BV)  # no sort where it is off
    noise_BV = jax.vmap(lambda key: jax.random.gumbel(key, z_BV.shape[1:], mode="high"))(
        keys_B
    )  # "low" never draws what is rarer than 6e-8
    token_B = jnp.where(greedy, jnp.argmax(z_BV, axis=-1), jnp.argmax(log_q_BV + noise_BV, axis=-1)).astype(jnp.int32)
    pick = lambda log_BV: jnp.take_along_axis(log_BV, token_B[:, None], axis=-1)[:, 0]
    return token_B, pick(jax.nn.log_softmax(z_BV)), jnp.where(greedy, jnp.zeros_like(z_BV[:, 0]), pick(log_q_BV))


@functools.lru_cache(maxsize=64)
def _program(config, steps, length, average=None):
    return jax.jit(functools.partial(_draw, config, steps, length, average))


@functools.lru_cache(maxsize=64)
def _members_program(config, steps, length, how):
    return members.over_members(functools.partial(_draw, config, steps, length, None), how)


def _draw(config, steps, length, average, params, key, tokens_BP, padding_B, rows_B, temperature, top_p, stop_K):
    """Samples: all prompt columns but the last at once, then from the last on one column a step until every row has stopped."""
    model = cfg.component(config.name, cfg.MODELS)
    B, K = len(tokens_BP), len(stop_K)
    forward, cache = _reader(model, config, average, params, model.start_cache(config, B, length, padding_B))
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(key, rows_B)
    if tokens_BP.shape[1] > 1:
        _, cache = forward(tokens_BP[:, :-1], cache)  # its logits are unused, so that the compiler drops the head

    def body(s):
        t, last_B, recent_BK, drawn, cache = s
        z_BTV, cache = forward(last_B[:, None], cache)
        token_B, log_p_B, log_q_B = choose(z_BTV[:, 0], jax.vmap(jax.random.fold_in, (0, None))(keys_B, t), temperature, top_p)
        live_B = ~drawn.stopped
        recent_BK = jnp.concatenate([recent_BK, token_B[:, None]], axis=1)[:, 1:] if K else recent_BK
        ended_B = jnp.all(recent_BK == stop_K[None], axis=1) if K else jnp.zeros(B, bool)
        put = lambda out_BN, value_B: out_BN.at[:, t].set(jnp.where(live_B, value_B, out_BN[:, t]))
        drawn = Samples(
            tokens=put(drawn.tokens, token_B),
            lengths=drawn.lengths + live_B,
            stopped=drawn.stopped | ended_B,
            log_p=put(drawn.log_p, log_p_B),
            log_q=put(drawn.log_q, log_q_B),
        )
        return t + 1, token_B, recent_BK, drawn, cache

    empty = Samples(
        tokens=jnp.full((B, steps), -1, jnp.int32),
        lengths=jnp.zeros(B, jnp.int32),
        stopped=jnp.zeros(B, bool),
        log_p=jnp.zeros((B, steps), jnp.float32),
        log_q=jnp.zeros((B, steps), jnp.float32),
    )
    start = (jnp.int32(0), tokens_BP[:, -1], jnp.full((B, K), -1, jnp.int32), empty, cache)
    return jax.lax.while_loop(lambda s: (s[0] < steps) & ~s[3].stopped.all(), body, start)[3]


def _reader(model, config, average, params, cache):
    """(forward: tokens, cache -> logits, cache; the cache it starts from) of one model (`average` None) or of a list of them."""

    def one(params, tokens_BT, cache):
        z_BTV, aux = model.apply(config, params, tokens_BT, cache=cache)
        return z_BTV, aux["cache"]

    if average is None:
        return functools.partial(one, params), cache
    models = members.stack(params)

    def team(tokens_BT, caches):
        z_MBTV, caches = jax.vmap(one, (0, None, 0))(models, tokens_BT, caches)
        z_MBTV = z_MBTV.astype(jnp.promote_types(z_MBTV.dtype, jnp.float32))
        if average == "logits":
            return z_MBTV.mean(axis=0), caches
        return jax.nn.logsumexp(jax.nn.log_softmax(z_MBTV), axis=0), caches  # less log M, which no softmax sees

    return team, members.stack([cache] * len(params))


def _checked(config, prompts, steps, temperature, top_p, stop, length, rows):
    """((steps, length), arrays of the program), or ConfigError."""
    if config.vocab is None:
        raise ConfigError("model.vocab = None: not yet bound to a corpus; set model.vocab, or bind the config to its corpus first")
    model = cfg.component(config.name, cfg.MODELS)
    if not hasattr(model, "start_cache"):
        raise ConfigError(f"model.name = {config.name!r}: has no start_cache; sampling needs a model with a cache, as transformer has")
    if not isinstance(steps, (int, np.integer)) or steps < 1:
        raise ConfigError(f"steps = {steps!r}: must be an integer of at least 1, the most tokens to draw")
    for name, value in (("temperature", temperature), ("top_p", top_p)):
        if not isinstance(value, (int, float, np.number)):
            raise ConfigError(f"{name} = {value!r}: expected a number")
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise ConfigError(
            f"temperature = {temperature!r}: must be finite and at least 0; 0 takes the likeliest token, 1 draws from the model"
        )
    if not 0 < top_p <= 1:
        raise ConfigError(f"top_p = {top_p!r}: must be greater than 0 and at most 1; 1 keeps every token")
    tokens, padding = left_pad(prompts)
    for row, skipped in enumerate(padding):
        _in_vocabulary(tokens[row, skipped:], config.vocab, f"prompts[{row}]")
    stop_ids = np.atleast_1d(np.asarray([] if stop is None else stop))
    if stop is not None and (stop_ids.ndim != 1 or not stop_ids.size or stop_ids.dtype.kind not in "iu"):
        raise ConfigError(f"stop = {stop!r}: expected a token id or a sequence of ids; None draws all steps")
    _in_vocabulary(stop_ids, config.vocab, "stop")
    needed = tokens.shape[1] + int(steps) - 1  # the last token drawn is not read
    if length is not None and length < needed:
        raise ConfigError(
            f"length = {length!r}: a prompt of {tokens.shape[1]} tokens and steps = {steps} need {needed} columns of the cache; "
            f"set length to {needed} or more, or shorten prompt or steps"
        )
    rows = np.arange(len(tokens)) if rows is None else np.asarray(rows)
    if rows.shape != (len(tokens),) or rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= 2**32:
        raise ConfigError(f"rows = {rows.tolist()}: expected {len(tokens)} integers from 0 to 2^32 - 1, one per prompt")
    arrays = (
        tokens.astype(np.int32),
        padding,
        rows.astype(np.uint32),
        np.float32(temperature),
        np.float32(top_p),
        stop_ids.astype(np.int32),
    )
    return (int(steps), operator.index(needed if length is None else length)), arrays


def _in_vocabulary(ids, vocab, where):
    wrong = np.flatnonzero((ids < 0) | (ids >= vocab))
    if wrong.size:
        raise ConfigError(f"{where}[{wrong[0]}] = {ids[wrong[0]]}: no token; ids are 0 to {vocab - 1}, model.vocab = {vocab}")
