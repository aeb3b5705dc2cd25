"""Text to tokens: the bytes themselves, or byte-level BPE trained on the train split and kept in the cache."""

import hashlib
import importlib.metadata
import shutil

import numpy as np

from scaling_jax.data import cache
from scaling_jax.records import ConfigError

SEPARATOR = "\0"  # ends every document; token 0 of both tokenizers
SMALLEST = 257
_PART = 2**20  # bytes of text tokenised, then kept: what a kill costs at most


def as_bytes(texts):
    """[tokens] uint8: every text followed by a NUL."""
    return np.frombuffer(b"".join(text + b"\0" for text in texts), np.uint8)


def bpe(splits, vocab, folder):
    """Tokens under a BPE of `vocab` tokens learnt from the train split alone.

    Args:
      splits: {split: [text bytes, UTF-8]}.
      folder: the cache; what is found there is used only if its checksum fits. A tokenisation that was killed goes on from the
        parts it had finished, and gives the same tokens.
    Returns:
      ({split: [tokens] uint16}, the tokenizer as JSON text).
    Raises:
      ConfigError naming document and byte: a text that is not UTF-8, or holds the separator.
    """
    version = importlib.metadata.version("tokenizers")
    seen = hashlib.sha256(f"bpe 2 {vocab} {version}".encode())
    for split in sorted(splits):
        seen.update(f" {split} {len(splits[split])} ".encode())
        seen.update(as_bytes(splits[split]).data)
    name = f"bpe-{vocab}-{seen.hexdigest()[:16]}"
    path, parts = folder / f"{name}.npz", folder / f"{name}.parts"
    held = cache.load(path, name, "tokenising again")
    if held is None:
        held = _build(splits, vocab, name, path, parts)
    if parts.is_dir():
        shutil.rmtree(parts, ignore_errors=True)
    return {split: held[split] for split in splits}, held["tokenizer"].tobytes().decode()


def decode(tokenizer, array):
    """The text of tokens, given the tokenizer's JSON."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokenizer).decode(list(map(int, array)), skip_special_tokens=False)


def _build(splits, vocab, name, path, parts):
    """Tokenises part by part, keeping each; without a cache where none can be written."""
    _refuse_bad_text(splits)
    writable, found = True, 0

    def part(label, purpose, make):
        nonlocal writable, found
        purpose = f"{name} {purpose}"
        if (kept := cache.load(parts / label, purpose, "making this part again")) is not None:
            found += 1
            return kept["part"]
        made = make()
        keep(parts / label, {"part": made}, purpose)
        return made

    def keep(target, arrays, purpose):
        nonlocal writable
        try:
            if writable:
                cache.save(target, arrays, purpose, parts)
        except OSError as error:
            writable = False
            cache.say(f"{target}: cannot be written ({error}); going on without, every start tokenises again; set SCALING_JAX_CACHE")

    json = part("tokenizer", "tokenizer", lambda: np.frombuffer(_train(splits["train"], vocab).to_str().encode(), np.uint8))
    tokenizer, digest = _tokenizer(json), hashlib.sha256(json).hexdigest()
    jobs = [(split, texts, start, stop) for split, texts in splits.items() for start, stop in _cuts(texts)]
    pieces: dict = {split: [np.zeros(0, np.uint16)] for split in splits}
    for split, texts, start, stop in jobs:
        label = f"{split}-{start}-{stop}"
        pieces[split].append(part(label, f"{digest} {label}", lambda these=texts[start:stop]: _encode(tokenizer, these)))
    if found:
        cache.say(f"{path}: a tokenisation cut short has gone on, {found} of its {len(jobs) + 1} parts were finished")
    held = {split: np.concatenate(arrays) for split, arrays in pieces.items()} | {"tokenizer": json}
    keep(path, held, name)
    return held


def _cuts(texts):
    """[(start, stop)] that cut documents into parts of at least _PART bytes, the last one aside."""
    cuts, start, size = [], 0, 0
    for i, text in enumerate(texts):
        size += len(text)
        if size >= _PART or i + 1 == len(texts):
            cuts.append((start, i + 1))
            start, size = i + 1, 0
    return cuts


def _refuse_bad_text(splits):
    for split, texts in splits.items():
        for i, text in enumerate(texts):
            where = f"document {i} of split {split!r} (it begins {text[:40]!r})"
            try:
                text.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ConfigError(
                    f"{where}: byte {text[error.start]:#04x} at offset {error.start} is not UTF-8 ({error.reason}); decode it with the encoding it was written in, or leave the document out and say so in the corpus's notes"
                ) from None
            if (at := text.find(b"\0")) >= 0:
                raise ConfigError(f"{where}: a NUL at offset {at}, and NUL ends a document; cut the document there, or replace it")


def _tokenizer(json):
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.tobytes().decode())


def _train(texts, vocab):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # every byte has a token, so any text has tokens
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=[SEPARATOR], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((text.decode("utf-8") for text in texts), trainer)
    return tokenizer


def _encode(tokenizer, texts):
    parts = []
    for encoding in tokenizer.encode_batch_fast([text.decode("utf-8") for text in texts], add_special_tokens=False):
        parts += [np.array(encoding.ids, np.uint16), np.zeros(1, np.uint16)]
    return np.concatenate(parts)
