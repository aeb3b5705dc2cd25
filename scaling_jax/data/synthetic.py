"""Synthetic text whose truth is known: sources with an exact entropy rate or an exact predictive loss.

markov: order k. p(s | c) = softmax_s(-zipf log rank(s) + noise g(c, s)), g standard normal: symbols and with them contexts are
  Zipfian. Entropy rate H = -sum_c pi(c) sum_s p(s | c) log p(s | c) nats, pi the stationary law of contexts.
hidden: a hidden Markov model with sticky states, each emitting Zipf-ranked symbols of its own: structure far longer than any
  n-gram. Its own predictive loss on a set of windows is computed exactly by the forward algorithm.
Dims: C contexts (V ** k), V symbols, S states, N windows, T time.
"""

import functools
from dataclasses import dataclass

import numpy as np

from scaling_jax.records import ConfigError, field

SOURCES = ("markov", "hidden")
SHARES = {"train": 0.8, "tune": 0.1, "test": 0.1}
LARGEST_TABLE = 2**22  # entries of the transition table of a Markov source


@dataclass(frozen=True)
class SyntheticConfig:
    """What a synthetic source is made of."""

    order: int = field(2, at_least=1, doc="k of the Markov source")
    states: int = field(16, at_least=2, doc="hidden states")
    stay: float = field(0.95, above=0.0, at_most=0.999, doc="probability that a hidden state stays")
    zipf: float = field(1.0, at_least=0.0, doc="exponent of the ranks")
    noise: float = field(1.5, at_least=0.0, doc="how far contexts differ")
    tokens: int = field(500_000, at_least=1_000, doc="length of the text, all splits")
    seed: int = field(0, at_least=0)


def generate(data):
    """Tokens {split: [tokens]} of one unbroken chain cut in three, the entropy rate (None where unknown), and notes."""
    text = sample(data.source, data.vocab, data.synthetic)
    ends = np.cumsum([round(share * len(text)) for share in SHARES.values()])[:-1]
    rate = entropy_rate(data.vocab, data.synthetic) if data.source == "markov" else None
    return dict(zip(SHARES, np.split(text, ends), strict=True)), rate, ()


def generator_loss(data, windows_NT):
    """`predictive_loss` of the generator a DataConfig names."""
    return predictive_loss(data.source, data.vocab, data.synthetic, windows_NT)


def sample(source, vocab, config):
    """A text of `config.tokens` symbols from the source "markov" or "hidden": int32 [tokens], one unbroken chain."""
    rng = np.random.default_rng([config.seed, 1])
    if source == "markov":
        table_CV, pi_C = markov(vocab, config)
        states = _chain(np.cumsum(table_CV, 1), int(rng.choice(len(pi_C), p=pi_C)), rng.random(config.tokens), lambda c, s: (c * vocab + s) % len(pi_C))
        return states % vocab
    moves_SS, emit_SV, pi_S = hidden(vocab, config)
    states = _chain(np.cumsum(moves_SS, 1), int(rng.choice(len(pi_S), p=pi_S)), rng.random(config.tokens), lambda c, s: s)
    return (np.cumsum(emit_SV, 1)[states] < rng.random(config.tokens)[:, None]).sum(1).clip(0, vocab - 1).astype(np.int32)


def entropy_rate(vocab, config):
    """Entropy rate of the Markov source, nats per token."""
    table_CV, pi_C = markov(vocab, config)
    return float(-(pi_C[:, None] * table_CV * np.log(table_CV)).sum())


def predictive_loss(source, vocab, config, windows_NT):
    """The generator's own loss on windows [N, T + 1]: mean of -log p(x_t | x_0 .. x_t-1), t = 1..T, nats per token."""
    log_p = _markov_log_p if source == "markov" else _hidden_log_p
    return float(-log_p(vocab, config, np.asarray(windows_NT))[:, 1:].mean())


@functools.lru_cache(maxsize=4)
def markov(vocab, config):
    """(p(s | c) [C, V], pi(c) [C]) of the Markov source; a context is its last k symbols read as a number."""
    contexts = vocab**config.order
    if contexts * vocab > LARGEST_TABLE:
        raise ConfigError(f"config.data.synthetic.order = {config.order}: {vocab} symbols make a table of {contexts * vocab} entries, more than {LARGEST_TABLE}; use a lower order or a smaller data.vocab")
    rng = np.random.default_rng([config.seed, 0])
    score_CV = -config.zipf * np.log(np.arange(1, vocab + 1)) + config.noise * rng.standard_normal((contexts, vocab))
    table_CV = np.exp(score_CV - score_CV.max(1, keepdims=True))
    table_CV /= table_CV.sum(1, keepdims=True)
    return table_CV, _stationary(lambda pi: (pi[:, None] * table_CV).reshape(vocab, -1).sum(0), contexts)


@functools.lru_cache(maxsize=4)
def hidden(vocab, config):
    """(p(state | state) [S, S], p(symbol | state) [S, V], pi(state) [S]) of the hidden Markov source."""
    rng = np.random.default_rng([config.seed, 0])
    size = config.states
    moves_SS = rng.dirichlet(np.ones(size), size) * (1 - config.stay) + np.eye(size) * config.stay
    weights_V = np.arange(1, vocab + 1) ** -config.zipf
    emit_SV = np.stack([rng.permutation(weights_V / weights_V.sum()) for _ in range(size)])
    return moves_SS, emit_SV, _stationary(lambda pi: pi @ moves_SS, size)


def _stationary(step, size):
    pi = np.full(size, 1.0 / size)
    for _ in range(100_000):
        after = step(pi)
        if np.abs(after - pi).sum() < 1e-14:
            return after / after.sum()
        pi = after
    raise ConfigError("config.data.synthetic: the source does not mix; lower `stay` or `noise`")


def _chain(cumulative, start, uniform, move):
    """States visited from `start`, one per uniform number; `move(state, drawn)` is the next state."""
    from bisect import bisect_left

    rows, last, state, out = cumulative.tolist(), cumulative.shape[1] - 1, start, []
    for u in uniform.tolist():
        state = move(state, min(bisect_left(rows[state], u), last))
        out.append(state)
    return np.array(out, np.int32)


def _markov_log_p(vocab, config, windows):
    """log p of every token given those before it in its window [N, T + 1]; the first k have shorter contexts, by marginals of pi."""
    table_CV, pi_C = markov(vocab, config)
    order = config.order
    joint = [pi_C.reshape((vocab,) * order).sum(tuple(range(k, order))) for k in range(order + 1)]  # p of the first k symbols
    out = np.empty(windows.shape)
    for t in range(min(order, windows.shape[1])):
        seen = tuple(windows[:, i] for i in range(t + 1))
        out[:, t] = np.log(joint[t + 1][seen]) - np.log(joint[t][seen[:-1]])
    context = np.zeros(len(windows), np.int64)
    for t in range(windows.shape[1]):
        if t >= order:
            out[:, t] = np.log(table_CV[context, windows[:, t]])
        context = (context * vocab + windows[:, t]) % len(pi_C)
    return out


def _hidden_log_p(vocab, config, windows):
    moves_SS, emit_SV, pi_S = hidden(vocab, config)
    belief_NS, out = np.tile(pi_S, (len(windows), 1)), np.empty(windows.shape)
    for t in range(windows.shape[1]):
        belief_NS = belief_NS * emit_SV[:, windows[:, t]].T
        p_N = belief_NS.sum(1)
        out[:, t] = np.log(p_N)
        belief_NS = belief_NS / p_N[:, None] @ moves_SS
    return out
