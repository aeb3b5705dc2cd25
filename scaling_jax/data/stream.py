"""Which tokens step s sees: a pure function of (seed, s), for any budget of unique tokens.

Window i of a split is its tokens [iT, iT + T], T = `sequence`: T inputs and, one later, T targets. A budget of n windows
is the first n of a permutation keyed by `subset_seed`, so smaller budgets nest in larger ones; every epoch visits the
budget in an order keyed by (seed, epoch). Nothing is stored: resume needs the step only.
"""

import functools
import math

import numpy as np

from scaling_jax.records import ConfigError

_ROUNDS = 6  # with all below golden-tested: another number is another data order
_GOLDEN = 0x9E3779B97F4A7C15
_SUBSET, _ORDER = 1, 2  # purposes of a seed
_AHEAD = 2048  # windows per member found at once


def unique_sequences(corpus, data):
    """Windows in the training budget: unique_tokens // sequence, or all of the train split."""
    windows = _windows(corpus, data, "train")
    if data.unique_tokens is None:
        return windows
    if data.unique_tokens < data.sequence:
        raise ConfigError(
            f"config.data.unique_tokens = {data.unique_tokens}: not one window of data.sequence = {data.sequence}; the least is {data.sequence}"
        )
    if data.unique_tokens // data.sequence > windows:
        raise ConfigError(
            f"config.data.unique_tokens = {data.unique_tokens}: corpus {corpus.name!r} has {windows} training windows of {data.sequence}; the largest possible is {windows * data.sequence}"
        )
    return data.unique_tokens // data.sequence


def epochs_to_steps(corpus, data, epochs):
    """Optimizer steps in `epochs` passes over the budget: round(epochs x windows / batch), at least 1."""
    return max(1, round(epochs * unique_sequences(corpus, data) / data.batch))


def batch_indices(data, seed, step, unique):
    """Places [batch] in the budget, in [0, unique), that step `step` visits; of an array of steps [..., batch].

    Position g = step x batch + (0 ... batch - 1) of the endless stream belongs to epoch g // unique, at place
    permute(g % unique, key(seed, epoch)); a batch may straddle two epochs.
    """
    g = np.asarray(step, np.int64)[..., None] * data.batch + np.arange(data.batch)
    return permute(g % unique, fold(_ORDER, seed, g // unique), unique)


def budget_windows(data, places, windows):
    """Window of the train split at each of `places` in the budget, out of `windows` in all."""
    return permute(places, fold(_SUBSET, data.subset_seed), windows)


class Batches:
    """Training batches by step: `batches[step]` is int32 [member, batch, sequence + 1], to be read in any order.

    Args:
      seeds: data order of each member.
      members: `DataConfig` of each member, of which unique_tokens and subset_seed may differ.
    """

    def __init__(self, corpus, data, seeds, members):
        self.data = data
        self.tokens = corpus.splits["train"]
        self.windows = _windows(corpus, data, "train")
        self.members = [(seed, member, unique_sequences(corpus, member)) for seed, member in zip(seeds, members, strict=True)]
        # The permutation costs NumPy's overhead per call, so the windows of some steps on are found at once, and kept.
        self.ahead = max(1, _AHEAD // data.batch)
        self.index = functools.lru_cache(maxsize=4)(self._index)

    def __getitem__(self, step):
        return gather(self.tokens, self.index(step // self.ahead)[:, step % self.ahead], self.data.sequence)

    def _index(self, chunk):
        """Windows of steps [chunk x ahead, (chunk + 1) x ahead), int64 [member, ahead, batch]."""
        steps = np.arange(chunk * self.ahead, (chunk + 1) * self.ahead)
        return np.stack(
            [budget_windows(member, batch_indices(self.data, seed, steps, unique), self.windows) for seed, member, unique in self.members]
        )


def stream(batches, begin, steps):
    """Iterates (index, batches[index]) over begin ... steps - 1, read ahead by grain's threads."""
    if begin >= steps:
        return iter(())
    import grain  # a second of import, only where batches are read

    # One element is one batch: grain's cost per element is then paid once a step. Threads, not processes: workers would
    # copy the corpus and tie the state to their number. Few threads: measured faster on few cores.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=8)
    dataset = grain.MapDataset.range(begin, steps).map(lambda index: (int(index), batches[int(index)]))
    return iter(dataset.to_iter_dataset(read_options=options))


def evaluation(corpus, data, split):
    """The fixed windows a split is measured on, int32 [eval_sequences, sequence + 1], the same for every seed.

    Spread evenly over the split.
    """
    windows = _windows(corpus, data, split)
    if data.eval_sequences > windows:
        raise ConfigError(
            f"config.data.eval_sequences = {data.eval_sequences}: split {split!r} of corpus {corpus.name!r} has {windows} windows of {data.sequence}; the largest possible is {windows}"
        )
    index = np.arange(data.eval_sequences, dtype=np.int64) * windows // data.eval_sequences
    return gather(corpus.splits[split], index, data.sequence)


def gather(tokens, windows, sequence):
    """int32 [..., sequence + 1]: the tokens of `windows` [...]."""
    starts = np.asarray(windows, np.int64)[..., None] * sequence
    return tokens[starts + np.arange(sequence + 1)].astype(np.int32)


def bytes_per_token(corpus, split):
    """Bytes of text per token of a split, or None where the tokens are no text."""
    size = corpus.split_bytes[split]
    return None if size is None else size / len(corpus.splits[split])


def bits_per_byte(loss, corpus, split):
    """loss / ln 2 / bytes per token, from nats per token; None where the tokens are no text."""
    size = bytes_per_token(corpus, split)
    return None if size is None else loss / math.log(2) / size


def permute(index, key, size):
    """A keyed bijection on [0, size), elementwise: a Feistel network on 2b bits, walked until it lands below `size`.

    (L, R) -> (R, L ^ F(R + k_i)), F the top b bits of `mix`, 4^b >= size. O(1) per element, no table; the same on every machine.

    Args:
      index: integers below `size`, any shape.
      key: uint64, or an array of them of the shape of `index`.
    Returns:
      int64, of the shape of `index`. Source: Black and Rogaway, Ciphers with arbitrary finite domains (CT-RSA 2002).
    """
    half = max(3, ((size - 1).bit_length() + 1) // 2)  # on fewer bits a Feistel network permutes poorly
    value = np.array(index, np.uint64)
    flat = value.reshape(-1)
    keys = np.asarray(key, np.uint64)
    keys = np.broadcast_to(keys.reshape(()) if keys.size == 1 else keys, value.shape).reshape(-1)
    walking = np.arange(flat.size)
    while walking.size:
        flat[walking] = _feistel(flat[walking], keys[walking], half)
        walking = walking[flat[walking] >= np.uint64(size)]
    return flat.reshape(value.shape).astype(np.int64)


def _feistel(value, key, half):
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = value >> shift, value & mask
    for i in range(_ROUNDS):
        round_key = mix(key + np.uint64((i + 1) * _GOLDEN % 2**64))
        left, right = right, left ^ (mix(right + round_key) >> np.uint64(64 - half))
    return left << shift | right


def fold(*words):
    """A uint64 key from integers (arrays broadcast): h <- mix(h ^ mix(word + c))."""
    h = np.zeros(1, np.uint64)
    for word in words:
        h = mix(h ^ mix(np.atleast_1d(np.asarray(word)).astype(np.uint64) + np.uint64(_GOLDEN)))
    return h


def mix(h):
    """A bijection on 64 bits (the finaliser of splitmix64; Steele, Lea and Flood, OOPSLA 2014); `h` an array."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def _windows(corpus, data, split):
    """Windows of a whole split: (tokens - 1) // sequence."""
    tokens = len(corpus.splits[split])
    if tokens < 2:
        raise ConfigError(
            f"config.data.source = {data.source!r}: split {split!r} of corpus {corpus.name!r} has {tokens} tokens; give more data"
        )
    if tokens <= data.sequence:
        raise ConfigError(
            f"config.data.sequence = {data.sequence}: split {split!r} of corpus {corpus.name!r} has {tokens} tokens; the largest possible is {tokens - 1}"
        )
    return (tokens - 1) // data.sequence
