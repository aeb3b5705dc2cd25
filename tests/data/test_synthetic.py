"""The generators' entropy and predictive loss against brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_jax.data import stream, synthetic
from scaling_jax.data.corpus import DataConfig, open_corpus
from scaling_jax.data.synthetic import SyntheticConfig
from scaling_jax.records import ConfigError


def config(source="markov", vocab=4, **changes):
    return DataConfig(source=source, vocab=vocab, sequence=20, synthetic=SyntheticConfig(**{"tokens": 60_000, "held_out": 6_000} | changes))


def dense(data):
    """The chain of contexts as a full matrix, and its stationary distribution by an eigen-solve."""
    table, _ = synthetic.markov(data)
    contexts = len(table)
    matrix = np.zeros((contexts, contexts))
    for c, s in itertools.product(range(contexts), range(data.vocab)):
        matrix[c, (c * data.vocab + s) % contexts] += table[c, s]
    values, vectors = np.linalg.eig(matrix.T)
    pi = np.real(vectors[:, np.argmin(abs(values - 1))])
    return matrix, pi / pi.sum()


@settings(max_examples=25)
@given(vocab=st.integers(2, 5), order=st.integers(1, 3), zipf=st.floats(0, 2), spread=st.floats(0, 1), seed=st.integers(0, 99))
def test_entropy_rate_is_that_of_a_dense_eigen_solve(vocab, order, zipf, spread, seed):
    data = config(vocab=vocab, order=order, zipf=zipf, spread=spread, seed=seed)
    matrix, pi = dense(data)
    np.testing.assert_allclose(synthetic.markov(data)[1], pi, atol=1e-12)
    expected = -sum(pi[c] * p * math.log(p) for c in range(len(pi)) for p in matrix[c][matrix[c] > 0])
    assert synthetic.entropy_rate(data) == pytest.approx(expected, abs=1e-12)
    assert 0 < synthetic.entropy_rate(data) <= math.log(vocab) + 1e-12


def test_entropy_rate_of_the_uniform_law_is_log_vocab():
    assert synthetic.entropy_rate(config(vocab=7, zipf=0.0)) == pytest.approx(math.log(7), abs=1e-13)


def test_laws_differ_by_context_and_follow_zipf():
    table, _ = synthetic.markov(config(vocab=8, spread=0.0, zipf=1.5))
    law = np.arange(1, 9.0) ** -1.5
    np.testing.assert_allclose(np.sort(table, axis=1)[:, ::-1], np.tile(law / law.sum(), (64, 1)), rtol=1e-12)
    assert len(np.unique(np.argsort(table, axis=1), axis=0)) > 60
    table, _ = synthetic.markov(config(vocab=8, spread=0.5))
    assert np.ptp(table.max(axis=1)) > 0.2


@pytest.mark.parametrize("order", [1, 2, 3])
def test_simulated_loss_agrees_with_the_entropy_rate(order):
    data = config(vocab=5, order=order, tokens=400_000)
    corpus = open_corpus(data)
    text = corpus.splits["train"].astype(np.int64)
    table, _ = synthetic.markov(data)
    context = sum(text[order - 1 - i : len(text) - 1 - i] * 5**i for i in range(order))
    losses = -np.log(table[context, text[order:]])
    blocks = losses[: len(losses) // 1000 * 1000].reshape(-1, 1000).mean(axis=1)  # blocks: the losses are correlated
    error = blocks.std(ddof=1) / math.sqrt(len(blocks))
    assert abs(blocks.mean() - corpus.entropy_rate) < 4.5 * error and error < 0.004


@pytest.mark.parametrize(
    "source, changes",
    [("markov", {}), ("markov", {"order": 1, "zipf": 3.0, "spread": 1.0}), ("hidden", {"states": 3}), ("hidden", {"stay": 0.999})],
)
def test_blocks_walk_the_chain_that_a_plain_loop_walks(source, changes):
    data = config(source, vocab=4, tokens=5_000, **changes)
    cumulative, start, follow = (
        (np.cumsum(synthetic.markov(data)[0], axis=1), 1, lambda c, s: (c * 4 + s) % len(synthetic.markov(data)[0]))
        if source == "markov"
        else (np.cumsum(synthetic.hidden(data)[1], axis=1), 1, lambda c, s: s)
    )
    u = synthetic.uniform(0, 99, 5_000)
    context, expected = start, []
    for value in u:
        expected.append(min(int(np.searchsorted(cumulative[context], value, side="right")), cumulative.shape[1] - 1))
        context = follow(context, expected[-1])
    np.testing.assert_array_equal(synthetic._walk(cumulative, start, u, follow), expected)


def test_more_tokens_continue_fewer():
    for source in synthetic.SOURCES:
        short, long = (open_corpus(config(source, tokens=n)).splits for n in (3_000, 9_000))
        np.testing.assert_array_equal(short["train"], long["train"][:3_000])
        np.testing.assert_array_equal(short["test"], long["test"])
        assert not np.array_equal(long["tune"], long["test"])
        assert len(long["train"]) == 9_000 and len(long["tune"]) == 6_000


def test_the_seed_changes_the_language():
    one, two = (open_corpus(config(seed=seed)) for seed in (0, 1))
    assert one.fingerprint != two.fingerprint and one.entropy_rate != two.entropy_rate


# The predictive loss


def by_paths(data, window):
    """p(x_0 ... x_t) of the hidden Markov model by summing over every path of states."""
    emit, jump, start = synthetic.hidden(data)
    total = 0.0
    for path in itertools.product(range(len(start)), repeat=len(window)):
        p = start[path[0]] * emit[path[0], window[0]]
        for before, state, symbol in zip(path, path[1:], window[1:], strict=False):
            p *= jump[before, state] * emit[state, symbol]
        total += p
    return total


def test_hidden_loss_is_the_sum_over_all_paths():
    data = config("hidden", vocab=3, states=3, stay=0.7, zipf=1.5)
    windows = np.array([[0, 1, 2, 2, 0, 1], [1, 1, 1, 1, 1, 1], [2, 0, 0, 1, 2, 2]])
    expected = [[-math.log(by_paths(data, w[: t + 1]) / by_paths(data, w[:t])) for t in range(1, 6)] for w in windows]
    np.testing.assert_allclose(synthetic.predictive_loss(data, windows), expected, rtol=1e-12)
    assert synthetic.generator_loss(data, windows) == pytest.approx(np.mean(expected), rel=1e-12)


def test_hidden_states_settle_where_an_eigen_solve_says():
    _, jump, start = synthetic.hidden(config("hidden", stay=0.99))
    np.testing.assert_allclose(jump.sum(axis=1), 1, atol=1e-14)
    np.testing.assert_allclose(start @ np.linalg.matrix_power(jump, 100_000), start, atol=1e-11)
    assert np.all(np.diag(jump) > 0.99)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_markov_loss_is_that_of_the_enumerated_chain(order):
    data = config(vocab=3, order=order)
    table, _ = synthetic.markov(data)
    _, pi = dense(data)

    def probability(window):  # over every completion of the first context
        if len(window) < order:
            return sum(probability([*window, s]) for s in range(3))
        context = sum(s * 3 ** (order - 1 - i) for i, s in enumerate(window[:order]))
        p = pi[context]
        for symbol in window[order:]:
            p, context = p * table[context, symbol], (context * 3 + symbol) % len(table)
        return p

    windows = np.array([[0, 1, 2, 0, 0], [2, 2, 1, 1, 0]])
    expected = [[-math.log(probability(list(w[: t + 1])) / probability(list(w[:t]))) for t in range(1, 5)] for w in windows]
    np.testing.assert_allclose(synthetic.predictive_loss(data, windows), expected, rtol=1e-10)


@pytest.mark.parametrize("source", synthetic.SOURCES)
def test_the_generator_beats_another_on_its_own_text(source):
    mine, other = config(source, vocab=8), config(source, vocab=8, seed=1)
    windows = stream.evaluation(open_corpus(mine), mine, "test")[:200]
    assert synthetic.generator_loss(mine, windows) + 0.1 < synthetic.generator_loss(other, windows)


def test_a_longer_past_tells_the_hidden_state():
    data = config("hidden", vocab=16, states=8, stay=0.99)
    text = open_corpus(data).splits["train"]
    losses = synthetic.predictive_loss(data, text[:60_000].reshape(-1, 100)).mean(axis=0)
    assert losses[:3].mean() > losses[50:].mean() + 0.1


@pytest.mark.parametrize(
    "data, message",
    [
        (
            DataConfig(source="markov"),
            r"config.data.synthetic.order = 2: data.vocab = 256 gives 256\^3 transitions.*set order to 1 at most, or data.vocab to 161",
        ),
        (
            DataConfig(source="hidden", synthetic=SyntheticConfig(states=40_000)),
            r"config.data.synthetic.states = 40000: too many for data.vocab = 256; set states to 2048 at most",
        ),
    ],
)
def test_a_generator_too_large_is_named(data, message):
    with pytest.raises(ConfigError, match=message):
        open_corpus(data)


def test_text_has_no_known_loss():
    with pytest.raises(ConfigError, match=r"config.data.source = 'stdlib': the true loss is known of markov and hidden only; set"):
        synthetic.generator_loss(DataConfig(), np.zeros((1, 3)))
