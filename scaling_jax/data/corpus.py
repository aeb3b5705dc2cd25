"""A corpus: token arrays of the splits train, tune and test, with a fingerprint.

Splits are by document, so no window of one split quotes another (documents.py). Sources: "stdlib", the Python sources
every machine has; "markov" and "hidden", synthetic text of known entropy (synthetic.py); "file", a user's tokens; and
"package.module:name", a user's own function from `DataConfig` to `Corpus`.
"""

import functools
import hashlib
import importlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaling_jax.data import documents, synthetic, token_files, tokens
from scaling_jax.data.synthetic import SyntheticConfig
from scaling_jax.records import ConfigError, field, suggest

SPLITS = ("train", "tune", "test")
SOURCES = ("stdlib", "markov", "hidden", "file")


@dataclass(frozen=True)
class DataConfig:
    """What is read, how it is cut into windows, and how much of it is unique."""

    source: str = field("stdlib", doc="stdlib, markov, hidden, file, or package.module:function of your own")
    tokenizer: str = field("bytes", choices=("bytes", "bpe"), doc="of a text source (stdlib)")
    vocab: int = field(256, at_least=2, at_most=2**31 - 1, doc="number of tokens; bytes: 256; bpe: the size asked; synthetic: its alphabet")
    path: str | None = field(None, recorded=True, doc="tokens of source 'file': raw .bin or .npy; their fingerprint is hashed instead")
    dtype: str = field("uint16", choices=("uint8", "uint16", "uint32", "int32", "int64"), doc="of a .bin file, little endian")
    separator: int | None = field(None, at_least=0, doc="token that ends a document of a file; None: documents of document_tokens tokens")
    document_tokens: int = field(1024, at_least=1, doc="length of a file's documents where there is no separator")
    sequence: int = field(64, at_least=1, doc="tokens predicted per window")
    batch: int = field(16, at_least=1, doc="windows per optimizer step")
    unique_tokens: int | None = field(None, at_least=1, doc="budget of unique training tokens, repeated when spent; None: all")
    eval_sequences: int = field(256, at_least=1, doc="windows per evaluation")
    subset_seed: int = field(0, at_least=0, doc="which windows the unique tokens are")
    synthetic: SyntheticConfig = field(SyntheticConfig)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Tokens of a source.

    Attributes:
      splits: {"train", "tune", "test"} -> [tokens] uint8, uint16 or int32.
      split_bytes: {split: bytes of text behind its tokens, or None where the tokens are no text}.
      fingerprint: hash of vocabulary, tokenizer and all tokens; part of every run's identity.
      entropy_rate: nats per token that no model can beat in expectation, where known.
    """

    name: str
    vocab: int
    splits: dict
    split_bytes: dict
    fingerprint: str
    entropy_rate: float | None = None
    notes: tuple[str, ...] = ()


def open_corpus(data):
    """The `Corpus` of a `DataConfig`; kept for the process, whatever batch, sequence or budget ask for it.

    Raises:
      ConfigError naming field, value and remedy; or the file whose tokens are no longer those that this process began with.
    """
    names = ("source", "tokenizer", "vocab", "path", "dtype", "separator", "document_tokens", "synthetic")
    data = DataConfig(**{name: getattr(data, name) for name in names})
    if data.source != "file":
        return _open(data)
    corpus = _open(data, token_files.stamp(data))
    if corpus.fingerprint != (began := _began(data)):
        raise ConfigError(
            f"config.data.path = {data.path!r}: its tokens changed while this process runs (fingerprint {began}, now {corpus.fingerprint}); put the file back, or start anew elsewhere to use what it holds now"
        )
    return corpus


@functools.cache
def _began(data):
    """Fingerprint of a file when this process first opened it."""
    return _open(data, token_files.stamp(data)).fingerprint


@functools.lru_cache(maxsize=8)
def _open(data, stamp=None):
    if data.source == "stdlib":
        return _stdlib(data)
    if data.source in synthetic.SOURCES:
        return _synthetic(data)
    if data.source == "file":
        return _file(data)
    return _own(data)


def corpus_of(name, vocab, splits, tokenizer, split_bytes=None, entropy_rate=None, notes=()):
    """A `Corpus` from integer arrays {split: [tokens]}: stored as narrowly as `vocab` allows, fingerprinted."""
    if missing := [split for split in SPLITS if split not in splits]:
        raise ConfigError(f"corpus {name!r}: has no split {missing[0]!r}; give tokens for {', '.join(SPLITS)}")
    for split in SPLITS:
        array = np.asarray(splits[split])
        rule = f"corpus {name!r}: split {split!r} must be one axis of integers from 0 to {vocab - 1}, its vocab being {vocab}"
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ConfigError(f"{rule}; it is {array.dtype} of shape {array.shape}")
        if array.size and not 0 <= array.min() <= array.max() < vocab:
            first = int(np.argmax((array < 0) | (array >= vocab)))
            raise ConfigError(f"{rule}; token {array[first]} stands at position {first}")
    dtype = narrowest(vocab)
    splits = {split: np.ascontiguousarray(splits[split], dtype) for split in SPLITS}
    seen = hashlib.sha256(f"{vocab} {tokenizer}".encode())
    for split, array in splits.items():
        array.flags.writeable = False  # shared by every run of the process
        seen.update(f" {split} {len(array)} ".encode())
        seen.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
    return Corpus(name, vocab, splits, split_bytes or dict.fromkeys(SPLITS), seen.hexdigest()[:16], entropy_rate, tuple(notes))


def described(corpus):
    """A line for people: what the corpus holds, and what is left out of it."""
    tokens = f"{len(corpus.splits['train']):,} training tokens, vocabulary {corpus.vocab}, fingerprint {corpus.fingerprint}"
    return "; ".join([f"corpus {corpus.name}: {tokens}", *corpus.notes])


def narrowest(vocab):
    """The type that tokens below `vocab` are kept in."""
    return np.uint8 if vocab <= 2**8 else np.uint16 if vocab <= 2**16 else np.int32


def cache_dir():
    """Where what is slow to build is kept: $SCALING_JAX_CACHE, else $XDG_CACHE_HOME/scaling_jax, else ~/.cache/scaling_jax."""
    own = os.environ.get("SCALING_JAX_CACHE")
    return Path(own).expanduser() if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "scaling_jax"


def _stdlib(data):
    if data.tokenizer == "bytes" and data.vocab != 256:
        raise ConfigError(
            f"config.data.vocab = {data.vocab}: tokenizer 'bytes' has 256 tokens; leave data.vocab out, or set data.tokenizer=bpe"
        )
    if data.tokenizer == "bpe" and not tokens.SMALLEST <= data.vocab <= 2**16:
        raise ConfigError(
            f"config.data.vocab = {data.vocab}: tokenizer 'bpe' needs {tokens.SMALLEST} (every byte and the separator) to {2**16}; set data.vocab=4096"
        )
    splits, notes = documents.stdlib()
    # A separator counts as the byte it is, so that bits per byte compare across tokenizers.
    split_bytes = {split: sum(len(text) + 1 for text in texts) for split, texts in splits.items()}
    if data.tokenizer == "bytes":
        arrays = {split: tokens.as_bytes(texts) for split, texts in splits.items()}
    else:
        arrays, _ = tokens.bpe(splits, data.vocab, cache_dir())
    return corpus_of(f"stdlib-{data.tokenizer}", data.vocab, arrays, data.tokenizer, split_bytes, notes=notes)


def _synthetic(data):
    arrays, entropy_rate, notes = synthetic.generate(data)
    return corpus_of(data.source, data.vocab, arrays, data.source, entropy_rate=entropy_rate, notes=notes)


def _file(data):
    array = token_files.read_tokens(data)
    if data.separator is not None:
        if data.separator >= data.vocab:
            raise ConfigError(f"config.data.separator = {data.separator}: not a token of data.vocab = {data.vocab}; give a smaller one")
        ends = np.flatnonzero(array == data.separator) + 1
        remedy = (
            f"its separator {data.separator} cuts {data.path} into too few different documents; leave data.separator out to cut by length"
        )
        where = f"config.data.separator = {data.separator}"
    else:
        ends = np.arange(data.document_tokens, len(array), data.document_tokens)
        remedy = f"cuts the {len(array)} tokens of {data.path} into too few different documents; set a smaller data.document_tokens, or more data"
        where = f"config.data.document_tokens = {data.document_tokens}"
    pieces = [piece for piece in np.split(array, ends) if len(piece)]
    # Hashed as they are kept, so that the same tokens in a file of another type are the same corpus.
    kept = np.dtype(narrowest(data.vocab)).newbyteorder("<")
    keys = [documents.content_hash(piece.astype(kept, copy=False).tobytes()) for piece in pieces]
    splits = documents.assign(keys, [len(piece) for piece in pieces], keys)  # equal documents stay together
    if not all(splits.values()):
        raise ConfigError(f"{where}: {remedy}; three splits need at least three")
    arrays = {split: np.concatenate([pieces[i] for i in chosen]) for split, chosen in splits.items()}
    return corpus_of(Path(data.path).name, data.vocab, arrays, "file", notes=(f"{len(array)} tokens in {len(pieces)} documents",))


def _own(data):
    module, _, name = data.source.partition(":")
    if not name:
        raise ConfigError(
            f"config.data.source = {data.source!r}: not one of {', '.join(map(repr, SOURCES))}{suggest(data.source, SOURCES)}; your own is named 'package.module:name'"
        )
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"config.data.source = {data.source!r}: cannot be imported ({error}); is it on PYTHONPATH?") from error
    corpus = function(data)
    if not isinstance(corpus, Corpus) or set(corpus.splits) != set(SPLITS):
        raise ConfigError(
            f"config.data.source = {data.source!r}: returned {type(corpus).__name__}; return scaling_jax.data.corpus.corpus_of(...) with splits {', '.join(SPLITS)}"
        )
    return corpus
