"""From a corpus to batches: a batch is a pure function of (seed, step).

A window is `sequence` + 1 consecutive tokens of a split; window i starts at token i x sequence. A budget of unique data is
the first n windows of one fixed permutation, so that smaller budgets lie inside larger ones. Every epoch visits all windows
of the budget once, in an order of its own; a batch may straddle two epochs.
"""

import math

import numpy as np

from scaling_jax.records import ConfigError

ROUNDS = 6  # of the Feistel network; its outputs are golden-tested, so this never changes
_SUBSET, _EPOCH = 1, 2  # purposes of a permutation


def permute(index, key, size):
    """A keyed permutation of range(size), evaluated at `index`: uint64 [n], O(1) per element.

    A balanced Feistel network on the next even number of bits, walked until it lands below `size`.

    Args:
      index: integers [n] in [0, size). key: tuple of non-negative integers, the permutation's name.
    Source: Black and Rogaway 2002, cycle walking.
    """
    bits = max(1, ((size - 1).bit_length() + 1) // 2)
    half, mask, rounds = np.uint64(bits), np.uint64((1 << bits) - 1), _round_keys(key)

    def once(x):
        left, right = x >> half, x & mask
        for round_key in rounds:
            left, right = right, left ^ (_scramble(right ^ round_key) & mask)
        return (left << half) | right

    out = once(np.asarray(index, np.uint64))
    while (outside := out >= size).any():
        out = np.where(outside, once(out), out)
    return out


def unique_sequences(corpus, data):
    """Windows of the unique-data budget."""
    there = _windows(corpus, data, "train")
    if data.unique_tokens is None:
        return there
    if data.unique_tokens < data.sequence:
        raise ConfigError(f"config.data.unique_tokens = {data.unique_tokens}: less than one sequence of {data.sequence} tokens; raise it, or lower data.sequence")
    if data.unique_tokens // data.sequence > there:
        raise ConfigError(f"config.data.unique_tokens = {data.unique_tokens}: corpus {corpus.name!r} has {there * data.sequence} training tokens in whole sequences; use at most that, or None for all")
    return data.unique_tokens // data.sequence


def epochs_to_steps(corpus, data, epochs):
    """Steps of `epochs` passes over the budget, rounded, at least one."""
    return max(1, round(epochs * unique_sequences(corpus, data) / data.batch))


def evaluation(corpus, data, split):
    """The fixed evaluation windows of a split, spread evenly: int32 [n, sequence + 1]; of train at most the budget's own."""
    there = _windows(corpus, data, split)
    if split == "train":
        count = unique_sequences(corpus, data)
        return _gather(corpus, data, "train", _budget(data, np.arange(min(data.eval_sequences, count)), there))
    if there < data.eval_sequences:
        raise ConfigError(f"config.data.eval_sequences = {data.eval_sequences}: split {split!r} of {corpus.name!r} has {there} sequences of {data.sequence} tokens; use at most {there}, or shorten data.sequence")
    return _gather(corpus, data, split, np.arange(data.eval_sequences) * there // data.eval_sequences)


def indices(data, seed, step, unique, there):
    """Windows of the batch at `step`: int64 [batch]. unique: windows of the budget; there: of the split."""
    at = step * data.batch + np.arange(data.batch)
    epoch, place = np.divmod(at, unique)
    epochs = range(int(epoch[0]), int(epoch[-1]) + 1)  # two when the batch straddles, more when the budget is smaller than a batch
    order = np.concatenate([permute(place[epoch == e], (_EPOCH, seed, e), unique) for e in epochs])
    return _budget(data, order, there)


class Batches:
    """The batches of a cohort: `batches[step]` is int32 [member, batch, sequence + 1].

    members: each member's data config; they may differ in `unique_tokens` and `subset_seed` only.
    """

    def __init__(self, corpus, data, seeds, members):
        self.corpus, self.data, self.there = corpus, data, _windows(corpus, data, "train")
        self.members = [(seed, member, unique_sequences(corpus, member)) for seed, member in zip(seeds, members, strict=True)]

    def __getitem__(self, step):
        rows = [indices(data, seed, step, unique, self.there) for seed, data, unique in self.members]
        return _gather(self.corpus, self.data, "train", np.stack(rows))


def stream(batches, begin, steps):
    """(step, batch) for steps begin .. steps - 1, read ahead by grain."""
    if begin >= steps:
        return
    import grain

    dataset = grain.MapDataset.range(begin, steps).map(lambda step: (int(step), batches[int(step)]))
    yield from dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=8))


def bytes_per_token(corpus, split):
    """Bytes of text a token of the split stands for."""
    if corpus.split_bytes.get(split) is None:
        raise ConfigError(f"corpus {corpus.name!r}: its bytes are not known, so bits per byte are not defined")
    return corpus.split_bytes[split] / len(corpus.splits[split])


def bits_per_byte(loss, corpus, split):
    """A loss in nats per token as bits per byte: loss / ln 2 / (bytes per token)."""
    return loss / math.log(2) / bytes_per_token(corpus, split)


def _windows(corpus, data, split):
    count = (len(corpus.splits[split]) - 1) // data.sequence
    if count < 1:
        raise ConfigError(f"config.data.sequence = {data.sequence}: longer than the {len(corpus.splits[split])} tokens of split {split!r} of {corpus.name!r}; use at most {len(corpus.splits[split]) - 1}")
    return count


def _budget(data, place, there):
    return permute(place, (_SUBSET, data.subset_seed), there).astype(np.int64)


def _gather(corpus, data, split, windows):
    at = np.asarray(windows, np.int64)[..., None] * data.sequence + np.arange(data.sequence + 1)
    return corpus.splits[split][at].astype(np.int32)


def _round_keys(key):
    """One 64-bit number per Feistel round, from the non-negative integers that name the permutation."""
    state = 0
    for part in key:
        state = int(_scramble(np.array([state ^ part], np.uint64))[0])
    return _scramble(np.uint64(state) ^ np.arange(ROUNDS, dtype=np.uint64))


def _scramble(x):
    """splitmix64 (Steele, Lea and Flood 2014) of an array of uint64."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
