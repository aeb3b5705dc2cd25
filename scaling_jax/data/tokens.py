"""Text to tokens: the bytes themselves, or byte-level BPE trained on the train split and kept in the cache."""

import hashlib
import importlib.metadata
import io
import os
import tempfile
import zipfile

import numpy as np

SEPARATOR = "\0"  # ends every document; token 0 of both tokenizers
SMALLEST = 257


def as_bytes(texts):
    """[tokens] uint8: every text followed by a NUL."""
    return np.frombuffer(b"".join(text + b"\0" for text in texts), np.uint8)


def bpe(splits, vocab, cache):
    """Tokens under a BPE of `vocab` tokens learnt from the train split alone.

    Args:
      splits: {split: [text bytes, UTF-8]}.
      cache: folder; what is found there is used only if its checksum fits.
    Returns:
      ({split: [tokens] uint16}, the tokenizer as JSON text).
    """
    version = importlib.metadata.version("tokenizers")
    seen = hashlib.sha256(f"bpe 1 {vocab} {version}".encode())
    for split in sorted(splits):
        seen.update(f" {split} ".encode())
        seen.update(as_bytes(splits[split]).data)
    path = cache / f"bpe-{vocab}-{seen.hexdigest()[:16]}.npz"
    held = _load(path)
    if held is None:
        tokenizer = _train(splits["train"], vocab)
        held = {split: _encode(tokenizer, texts) for split, texts in splits.items()}
        held["tokenizer"] = np.frombuffer(tokenizer.to_str().encode(), np.uint8)
        _save(path, held)
    return {split: held[split] for split in splits}, held["tokenizer"].tobytes().decode()


def decode(tokenizer, array):
    """The text of tokens, given the tokenizer's JSON."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokenizer).decode(list(map(int, array)), skip_special_tokens=False)


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


def _save(path, arrays):
    """Checksum, then the arrays; complete or not there at all. A cache that cannot be written is done without."""
    payload = io.BytesIO()
    np.savez(payload, **arrays)
    body = payload.getvalue()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(body).digest() + body)
        os.replace(name, path)
    except OSError:
        return


def _load(path):
    """The arrays of `_save`, or None where the file is missing or damaged (it is then written anew)."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    checksum, body = content[:32], content[32:]
    if hashlib.sha256(body).digest() != checksum:
        return None
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as file:
            return dict(file)
    except (ValueError, zipfile.BadZipFile):
        return None
