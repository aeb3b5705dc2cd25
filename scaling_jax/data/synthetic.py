"""Text whose entropy is known: a Markov chain with an exact entropy rate, and a hidden Markov model with an exact predictive loss.

markov: the next of V symbols follows a Zipf law over a ranking of its own for each context of `order` symbols, with an
exponent of its own. hidden: a sticky chain of `states` chooses which Zipf law emits; the past tells the state only slowly, so
longer contexts predict better.
"""

import functools
from dataclasses import dataclass

import numpy as np

from scaling_jax.records import ConfigError, field

SOURCES = ("markov", "hidden")
_LARGEST = 2**22  # entries of a transition table: 32 MiB, ten seconds for two million tokens
_BLOCKS = 2048
_RANKS, _EXPONENTS, _MOVE_RANKS, _MOVE_EXPONENTS = range(4)  # what a stream of random bits is for
_STREAMS = {"train": 16, "tune": 17, "test": 18}


@dataclass(frozen=True)
class SyntheticConfig:
    """The generators' parameters; the alphabet is `data.vocab`."""

    tokens: int = field(2_000_000, at_least=1, doc="of the train split; a longer one continues a shorter one")
    held_out: int = field(200_000, at_least=1, doc="tokens of tune and of test each")
    seed: int = field(0, at_least=0, doc="of the language and of its text")
    order: int = field(2, at_least=1, doc="markov: symbols of context")
    states: int = field(8, at_least=2, doc="hidden: number of states")
    stay: float = field(0.98, at_least=0.0, at_most=0.9999, doc="hidden: least probability of keeping the state")
    zipf: float = field(1.0, at_least=0.0, at_most=4.0, doc="mean exponent: p(rank r) ~ r^-exponent; 0: uniform")
    spread: float = field(0.5, at_least=0.0, at_most=1.0, doc="exponents are uniform in zipf (1 +- spread)")


def generate(data):
    """({split: [tokens] int64}, entropy rate in nats per token or None, notes) of a `DataConfig`; every split is one unbroken chain."""
    config, out = data.synthetic, {}
    if data.source == "markov":
        table, stationary = markov(data)
        for split, stream in _STREAMS.items():
            u = uniform(config.seed, stream, 1 + _size(config, split))
            out[split] = _walk(np.cumsum(table, axis=1), _start(stationary, u[0]), u[1:], lambda c, s: (c * data.vocab + s) % len(table))
        return out, entropy_rate(data), (f"order {config.order} Markov chain, exact entropy rate",)
    emit, move, stationary = hidden(data)
    for split, stream in _STREAMS.items():
        u = uniform(config.seed, stream, 1 + 2 * _size(config, split))
        states = _walk(np.cumsum(move, axis=1), _start(stationary, u[0]), u[1::2], lambda c, s: s)
        out[split] = _inverse(_stacked(np.cumsum(emit, axis=1)), data.vocab, states, u[2::2])
    return out, None, (f"hidden Markov model of {config.states} states; synthetic.generator_loss is its own loss",)


def entropy_rate(data):
    """Exact entropy rate of the "markov" source: H = -sum_c pi(c) sum_s p(s|c) log p(s|c), nats per token."""
    table, stationary = markov(data)
    return float(-np.sum(stationary * np.sum(table * np.log(table), axis=1)))


def generator_loss(data, windows):
    """Mean loss of the generator itself on windows [N, T + 1], nats per token: what a perfect model gets on just these."""
    return float(np.mean(predictive_loss(data, windows)))


def predictive_loss(data, windows):
    """-log p(x_t | x_0 ... x_{t-1}) under the true generator, t = 1 ... T, [N, T] nats, from windows [N, T + 1].

    Exact: a window starts from the stationary distribution, as a model that sees nothing before it must assume.
    """
    windows = np.asarray(windows, np.int64)
    if data.source not in SOURCES:
        raise ConfigError(
            f"config.data.source = {data.source!r}: the true loss is known of {' and '.join(SOURCES)} only; set data.source=markov"
        )
    return _markov_loss(data, windows) if data.source == "markov" else _hidden_loss(data, windows)


def markov(data):
    """(p(symbol | context) [V^order, V], stationary distribution of contexts [V^order]); the newest symbol is the context's last digit."""
    config = data.synthetic
    if data.vocab ** (config.order + 1) > _LARGEST:
        order = max(k for k in range(1, 22) if k == 1 or data.vocab ** (k + 1) <= _LARGEST)
        vocab = max(v for v in range(2, 2049) if v == 2 or v ** (config.order + 1) <= _LARGEST)
        raise ConfigError(
            f"config.data.synthetic.order = {config.order}: data.vocab = {data.vocab} gives {data.vocab}^{config.order + 1} transitions, more than 2^22; set order to {order} at most, or data.vocab to {vocab}"
        )
    return _markov(config.seed, data.vocab, config.order, config.zipf, config.spread)


def hidden(data):
    """(p(symbol | state) [S, V], p(next state | state) [S, S], stationary distribution of states [S])."""
    config = data.synthetic
    if config.states * max(data.vocab, config.states) > _LARGEST:
        raise ConfigError(
            f"config.data.synthetic.states = {config.states}: too many for data.vocab = {data.vocab}; set states to {min(2048, _LARGEST // data.vocab)} at most"
        )
    return _hidden(config.seed, data.vocab, config.states, config.stay, config.zipf, config.spread)


@functools.lru_cache(maxsize=4)
def _markov(seed, vocab, order, zipf, spread):
    table = _laws(seed, (_RANKS, _EXPONENTS), vocab**order, vocab, zipf, spread)
    return table, _stationary(table)


@functools.lru_cache(maxsize=4)
def _hidden(seed, vocab, states, stay, zipf, spread):
    emit = _laws(seed, (_RANKS, _EXPONENTS), states, vocab, zipf, spread)
    move = _laws(seed, (_MOVE_RANKS, _MOVE_EXPONENTS), states, states, zipf, spread)
    # Staying changes how fast the chain mixes, not where it settles: pi (a I + (1 - a) M) = pi exactly when pi M = pi.
    return emit, stay * np.eye(states) + (1 - stay) * move, _stationary(move)


def _laws(seed, streams, rows, vocab, zipf, spread):
    """[rows, vocab]: a Zipf law per row, over a ranking and with an exponent of the row's own."""
    ranks = np.argsort(uniform(seed, streams[0], rows * vocab).reshape(rows, vocab), axis=1, kind="stable")
    exponents = zipf * (1 + spread * (2 * uniform(seed, streams[1], rows) - 1))
    table = np.exp(-exponents[:, None] * np.log1p(ranks))
    return table / table.sum(axis=1, keepdims=True)


def _stationary(table):
    """Stationary distribution of the contexts of a chain p(symbol | context) [C, V], C a power of V, by power iteration to 1e-14."""
    contexts, vocab = table.shape
    table = table.reshape(vocab, contexts // vocab, vocab)
    pi = np.full(contexts, 1 / contexts)
    for _ in range(10_000):
        # Shifting in a symbol drops the context's oldest, a: pi'(rest, s) = sum_a pi(a, rest) p(s | a, rest).
        new = np.einsum("ar,ars->rs", pi.reshape(vocab, -1), table).reshape(-1)
        new /= new.sum()
        change, pi = np.abs(new - pi).sum(), new
        if change < 1e-14:
            return pi
    raise ConfigError(
        f"config.data.synthetic.zipf: the chain settles too slowly to know its stationary distribution (still moving by {change:.1e}); set a smaller zipf or spread"
    )


def uniform(seed, stream, count):
    """Uniform doubles on [0, 1): the top 53 bits of Philox, whose raw bits NumPy promises to keep."""
    raw = np.random.Philox(key=np.array([seed % 2**64, stream], np.uint64)).random_raw(count)
    return (raw >> np.uint64(11)) * 2.0**-53


def _walk(cumulative, start, u, follow):
    """Symbols of one chain: s_t = the inverse of row c_t of `cumulative` at u_t, c_{t+1} = follow(c_t, s_t).

    Blocks of the chain are walked side by side, each from where the block before it last ended, until no end moves: the
    chain is the one that a plain loop gives, and as chains with the same u soon meet, a few passes do.
    """
    count = len(u)
    length = -(-count // _BLOCKS)
    blocks = -(-count // length)
    u = np.concatenate([u, np.zeros(blocks * length - count)]).reshape(blocks, length).T
    rows, width = _stacked(cumulative), cumulative.shape[1]
    symbols = np.zeros((length, blocks), np.int64)
    starts, active = np.full(blocks, start), np.arange(blocks)
    while active.size:
        context = starts[active]
        for t in range(length):
            symbols[t, active] = symbol = _inverse(rows, width, context, u[t, active])
            context = follow(context, symbol)
        after, context = active[active + 1 < blocks] + 1, context[active + 1 < blocks]
        moved = context != starts[after]
        active = after[moved]
        starts[active] = context[moved]
    return symbols.T.reshape(-1)[:count]


def _stacked(cumulative):
    """Rows of cumulative probabilities end to end, row c raised by c: sorted, so one search serves all rows."""
    return (cumulative.clip(max=1.0) + np.arange(len(cumulative))[:, None]).reshape(-1)


def _inverse(rows, width, context, u):
    """Symbol whose interval of row `context` holds u."""
    return (np.searchsorted(rows, context + u, side="right") - context * width).clip(0, width - 1)


def _start(stationary, u):
    return int(np.searchsorted(np.cumsum(stationary), u, side="right").clip(max=len(stationary) - 1))


def _markov_loss(data, windows):
    table, stationary = markov(data)
    order, vocab = data.synthetic.order, data.vocab
    out = np.empty((len(windows), windows.shape[1] - 1))
    context = windows[:, 0]
    for t in range(1, windows.shape[1]):
        if t < order:  # fewer seen than the order: p of t + 1 symbols over p of t, both by summing pi over the symbols to come
            joint = stationary.reshape(vocab ** (t + 1), -1).sum(axis=1)
            out[:, t - 1] = np.log(joint.reshape(-1, vocab).sum(axis=1)[context]) - np.log(joint[context * vocab + windows[:, t]])
        else:
            out[:, t - 1] = -np.log(table[context, windows[:, t]])
        context = (context * vocab + windows[:, t]) % len(table)
    return out


def _hidden_loss(data, windows):
    emit, move, stationary = hidden(data)
    out = np.empty((len(windows), windows.shape[1] - 1))
    belief = np.broadcast_to(stationary, (len(windows), len(stationary)))  # p(state_t | x_0 ... x_{t-1}), the forward algorithm
    for t in range(windows.shape[1]):
        joint = belief * emit[:, windows[:, t]].T
        evidence = joint.sum(axis=1, keepdims=True)
        if t:
            out[:, t - 1] = -np.log(evidence[:, 0])
        belief = joint / evidence @ move
    return out


def _size(config, split):
    return config.tokens if split == "train" else config.held_out
