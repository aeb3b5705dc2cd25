"""Data order: a pure function of (seed, step), every window once an epoch, budgets that nest."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_jax.data import stream
from scaling_jax.data.corpus import DataConfig, corpus_of
from scaling_jax.records import ConfigError

LETTERS = np.arange(1000) % 251
CORPUS = corpus_of("letters", 256, {"train": LETTERS, "tune": LETTERS[:200], "test": LETTERS[:333]}, "none")
T = 10
WINDOWS = 99  # (1000 - 1) // 10
GOLDEN = {  # another value is another data order: raise config.SCHEMA
    10: [5, 2, 9, 4, 3, 6, 7, 8, 1, 0],
    1_000_003: [471580, 156303, 272042, 485999, 948578, 172349, 298758, 214250],
    2**40: [308510451652, 593332306160, 32990658064, 855260846795],
    "batch": [3, 10, 20, 13],
}


def config(**changes):
    return DataConfig(**{"sequence": T, "batch": 4, "eval_sequences": 8} | changes)


def windows_seen(data, seed, steps, unique):
    return stream.batch_indices(data, seed, np.arange(steps), unique).reshape(-1)


# The permutation


def test_permute_golden():
    np.testing.assert_array_equal(stream.permute(np.arange(10), 1, 10), GOLDEN[10])
    np.testing.assert_array_equal(stream.permute(np.arange(8), 12345, 1_000_003), GOLDEN[1_000_003])
    np.testing.assert_array_equal(stream.permute(np.arange(4), 2**64 - 1, 2**40), GOLDEN[2**40])


def test_batch_indices_golden():
    np.testing.assert_array_equal(stream.batch_indices(config(), 3, 7, 30), GOLDEN["batch"])  # straddles epochs 0 and 1


@settings(max_examples=60)
@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_permute_is_a_bijection(size, key):
    image = stream.permute(np.arange(size), key, size)
    np.testing.assert_array_equal(np.sort(image), np.arange(size))


@settings(max_examples=30)
@given(size=st.integers(1, 2**45), key=st.integers(0, 2**64 - 1), data=st.data())
def test_permute_is_elementwise_and_injective(size, key, data):
    some = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=30, unique=True)))
    image = stream.permute(some, key, size)
    assert image.min() >= 0 and image.max() < size and len(set(image.tolist())) == len(some)
    np.testing.assert_array_equal(image, [int(stream.permute(i, key, size)) for i in some])
    np.testing.assert_array_equal(image, stream.permute(some, np.full(len(some), key, np.uint64), size))


def test_permute_looks_random():
    # Over keys, where each place goes is uniform, and so is the distance between neighbours.
    keys, size = 4000, 10
    images = stream.permute(np.tile(np.arange(size), (keys, 1)), np.repeat(stream.fold(np.arange(keys)), size).reshape(keys, size), size)
    counts = np.stack([np.bincount(images[:, i], minlength=size) for i in range(size)])
    assert ((counts - keys / size) ** 2 / (keys / size)).sum() < 150  # 81 expected, deviation 13
    gaps = np.bincount((images[:, 1] - images[:, 0]) % size, minlength=size)[1:]
    assert ((gaps - keys / 9) ** 2 / (keys / 9)).sum() < 32  # 8 expected, deviation 4


# Epochs, budgets


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), unique=st.integers(1, 60), batch=st.integers(1, 17), epochs=st.integers(1, 4))
def test_every_epoch_visits_every_window_once(seed, unique, batch, epochs):
    seen = windows_seen(config(batch=batch), seed, -(-unique * epochs // batch), unique)
    for epoch in range(epochs):
        assert sorted(seen[epoch * unique : (epoch + 1) * unique]) == list(range(unique))


def test_epochs_differ_in_order():
    seen = windows_seen(config(), 0, 3 * 60 // 4, 60).reshape(3, 60)
    assert not np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[1], seen[2])
    assert not np.array_equal(seen[0], windows_seen(config(), 1, 15, 60))


@settings(max_examples=30)
@given(seed=st.integers(0, 2**40), steps=st.lists(st.integers(0, 10**6), min_size=1, max_size=5), unique=st.integers(1, 99))
def test_a_batch_is_a_function_of_seed_and_step(seed, steps, unique):
    data = config(unique_tokens=unique * T)
    one, two = (stream.Batches(CORPUS, data, [seed], [data]) for _ in range(2))
    forward, backward = [one[s] for s in steps], [two[s] for s in reversed(steps)]
    for a, b, step in zip(forward, reversed(backward), steps, strict=True):
        np.testing.assert_array_equal(a, b)
        index = stream.budget_windows(data, stream.batch_indices(data, seed, step, unique), WINDOWS)
        for row, window in zip(a[0], index, strict=True):
            np.testing.assert_array_equal(row, LETTERS[window * T : window * T + T + 1])


def budget(data):
    """The windows an epoch visits, by what they hold (LETTERS repeats only after 251 x 10 tokens)."""
    batches = stream.Batches(CORPUS, data, [5], [data])
    count = stream.unique_sequences(CORPUS, data)
    rows = np.concatenate([batches[s][0] for s in range(-(-count // data.batch))])[:count]
    return {tuple(row) for row in rows}


def test_budgets_nest():
    held = [budget(config(unique_tokens=n * T)) for n in (1, 7, 30, 31, 99)]
    assert [len(h) for h in held] == [1, 7, 30, 31, 99]
    for small, large in zip(held, held[1:], strict=False):
        assert small < large
    assert held[-1] == budget(config())
    assert budget(config(unique_tokens=300, subset_seed=1)) != budget(config(unique_tokens=300))


def test_a_budget_is_not_a_prefix_of_the_text():
    index = stream.budget_windows(config(), np.arange(30), WINDOWS)
    assert index.max() > 60 and index.min() < 30 and np.any(np.diff(index) < 0)


def test_unique_sequences():
    assert stream.unique_sequences(CORPUS, config()) == WINDOWS
    assert stream.unique_sequences(CORPUS, config(unique_tokens=109)) == 10
    assert stream.unique_sequences(CORPUS, config(unique_tokens=999)) == WINDOWS
    assert stream.unique_sequences(CORPUS, config(sequence=999)) == 1


@pytest.mark.parametrize("epochs, unique, steps", [(1.0, 400, 10), (0.001, 400, 1), (2.0, 990, 50), (1.5, 410, 15)])
def test_epochs_to_steps(epochs, unique, steps):
    assert stream.epochs_to_steps(CORPUS, config(unique_tokens=unique), epochs) == steps


# Batches through grain


def test_members_do_not_touch_each_other():
    data = [config(), config(unique_tokens=200), config(unique_tokens=200, subset_seed=3)]
    together = stream.Batches(CORPUS, data[0], [0, 1, 1], data)
    assert together[11].shape == (3, 4, T + 1) and together[11].dtype == np.int32
    for m, (seed, member) in enumerate(zip([0, 1, 1], data, strict=True)):
        np.testing.assert_array_equal(together[11][m], stream.Batches(CORPUS, member, [seed], [member])[11][0])
    assert not np.array_equal(together[11][1], together[11][2])


def test_stream_gives_the_batches_in_order_from_any_step():
    data = config()
    batches = stream.Batches(CORPUS, data, [0, 4], [data, data])
    whole = list(stream.stream(batches, 0, 40))
    assert [index for index, _ in whole] == list(range(40)) and type(whole[0][0]) is int
    for index, batch in whole:
        np.testing.assert_array_equal(batch, batches[index])
    resumed = list(stream.stream(batches, 33, 40))
    assert [index for index, _ in resumed] == list(range(33, 40))
    for index, batch in resumed:
        np.testing.assert_array_equal(batch, whole[index][1])
    assert list(stream.stream(batches, 40, 40)) == [] == list(stream.stream(batches, 41, 40))


def test_a_stream_may_be_left_early():
    program = "from tests.data.test_stream import *; b = stream.Batches(CORPUS, config(), [0], [config()]); print(next(iter(stream.stream(b, 0, 10**6)))[0])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_grain_is_imported_only_to_stream():
    program = "import sys, scaling_jax.data.stream, scaling_jax.data.corpus; print(sorted({'grain', 'tokenizers', 'pandas', 'jax', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60).stdout == "[]\n"


# Evaluation


def test_evaluation_windows_are_fixed_spread_and_distinct():
    windows = stream.evaluation(CORPUS, config(), "test")
    assert windows.shape == (8, T + 1) and windows.dtype == np.int32
    np.testing.assert_array_equal(windows[:, 0], np.arange(8) * 33 // 8 * T % 251)  # 33 windows
    everything = stream.evaluation(CORPUS, config(eval_sequences=33), "test")
    np.testing.assert_array_equal(everything[:, :T].reshape(-1), LETTERS[:330])
    np.testing.assert_array_equal(everything[:-1, T], everything[1:, 0])  # the last target is the next window's first input


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: stream.unique_sequences(CORPUS, config(unique_tokens=9)),
            r"config.data.unique_tokens = 9: not one window of data.sequence = 10; the least is 10",
        ),
        (
            lambda: stream.unique_sequences(CORPUS, config(unique_tokens=1000)),
            r"config.data.unique_tokens = 1000: .*has 99 training windows of 10; the largest possible is 990",
        ),
        (
            lambda: stream.unique_sequences(CORPUS, config(sequence=1000)),
            r"config.data.sequence = 1000: split 'train' .* has 1000 tokens; the largest possible is 999",
        ),
        (
            lambda: stream.evaluation(CORPUS, config(sequence=500), "test"),
            r"config.data.sequence = 500: split 'test' .* the largest possible is 332",
        ),
        (
            lambda: stream.evaluation(CORPUS, config(eval_sequences=34), "test"),
            r"config.data.eval_sequences = 34: split 'test' .*has 33 windows of 10; the largest possible is 33",
        ),
        (
            lambda: stream.Batches(CORPUS, config(), [0, 1], [config(), config(unique_tokens=10**6)]),
            r"config.data.unique_tokens = 1000000: .*largest possible is 990",
        ),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_bits_per_byte():
    text = corpus_of(
        "text", 256, {"train": LETTERS, "tune": LETTERS, "test": LETTERS[:500]}, "none", {"train": 2000, "tune": 1000, "test": 2000}
    )
    assert stream.bytes_per_token(text, "test") == 4.0
    assert stream.bits_per_byte(4 * math.log(2), text, "test") == 1.0  # 4 bits a token of 4 bytes
    assert stream.bits_per_byte(1.0, CORPUS, "test") is None and stream.bytes_per_token(CORPUS, "test") is None
