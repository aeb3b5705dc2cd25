"""Documents into splits: near-duplicates stay on one side, sides are drawn by a keyed hash of the content."""

import hashlib
import os
import sysconfig
import zlib
from pathlib import Path

import numpy as np

from scaling_jax.records import ConfigError

SHINGLE = 4  # consecutive lines, blank ones left out
CONTAINMENT = 0.5
HELD_OUT = 0.1  # of the tokens, for tune and for test each
_KEY = b"scaling_jax split 1"  # another key is another split
_LEFT_OUT = {"test", "tests", "idle_test", "encodings", "site-packages", "dist-packages", "_bundled", "__pycache__"}


def stdlib():
    """Python's own sources, without tests and tables: ({split: [text bytes]}, notes)."""
    texts, left_out = _sources(Path(sysconfig.get_path("stdlib")))
    keys = [content_hash(text) for text in texts]
    groups = near_duplicates(texts)
    splits = assign(keys, [len(text) + 1 for text in texts], groups)
    if not all(splits.values()):
        raise ConfigError(
            f"config.data.source = 'stdlib': only {len(texts)} Python sources in {sysconfig.get_path('stdlib')}; install python with its library, or set data.source=markov"
        )
    notes = (
        f"{len(texts)} documents in {len(set(groups))} groups of near-duplicates",
        *left_out,
    )
    return {split: [texts[i] for i in chosen] for split, chosen in splits.items()}, notes


def content_hash(text):
    """64 bits of a keyed hash of bytes: the same in every process, on every machine."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=_KEY).digest(), "little")


def assign(keys, sizes, groups):
    """{split: [document]}: whole groups in the order of their smallest key, to test until it has a tenth of all tokens, then tune, then train.

    Args:
      keys: content hash per document.
      sizes: tokens per document.
      groups: group per document; a group is never cut.
    Returns:
      documents in hash order, so that a prefix of a split is a random sample of it.
    """
    rank: dict = {}
    for key, group in zip(keys, groups, strict=True):
        rank[group] = min(rank.get(group, key), key)
    order = sorted(range(len(keys)), key=lambda i: (rank[groups[i]], groups[i], keys[i], i))
    quota = HELD_OUT * sum(sizes)
    splits: dict = {"train": [], "tune": [], "test": []}
    side, filled, last = "test", 0, None
    for i in order:
        if groups[i] != last and filled >= quota and side != "train":
            side, filled = {"test": "tune", "tune": "train"}[side], 0
        splits[side].append(i)
        filled, last = filled + sizes[i], groups[i]
    return splits


def near_duplicates(texts):
    """Group per document: two documents share one when |A n B| >= 0.5 min(|A|, |B|), A and B their sets of line shingles (union-find)."""
    sets = [shingles(text) for text in texts]
    sizes = np.array([len(s) for s in sets])
    owner = np.repeat(np.arange(len(sets)), sizes)
    values = np.concatenate(sets) if sets else np.zeros(0, np.uint64)
    order = np.argsort(values, kind="stable")
    values, owner = values[order], owner[order]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    shared: dict = {}
    for start, stop in zip(starts, np.r_[starts[1:], len(values)], strict=True):
        if stop - start > 1:
            members = owner[start:stop].tolist()
            for a, left in enumerate(members):
                for right in members[a + 1 :]:
                    shared[left, right] = shared.get((left, right), 0) + 1
    parent = list(range(len(texts)))

    def root(i):
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for (left, right), count in shared.items():
        if count >= CONTAINMENT * min(sizes[left], sizes[right]):
            parent[root(right)] = root(left)
    return [root(i) for i in range(len(texts))]


def shingles(text):
    """Distinct hashes of every SHINGLE consecutive stripped, non-blank lines, sorted uint64 (a shorter text is one shingle)."""
    lines = np.array([zlib.crc32(line) for raw in text.split(b"\n") if (line := raw.strip())], np.uint64)
    width = max(1, min(SHINGLE, len(lines)))
    rolled = np.zeros(max(0, len(lines) - width + 1), np.uint64)
    for i in range(width):
        rolled = (rolled ^ lines[i : i + len(rolled)]) * np.uint64(0x9E3779B97F4A7C15)
        rolled ^= rolled >> np.uint64(29)
    return np.unique(rolled)


def _sources(home):
    """([text bytes], notes on what is left out): every file of Python below `home`, in the order of their names, but for stated rules."""
    texts, left_out = [], {"not UTF-8": [], "text with a NUL": [], "blank": [], "a link to nothing": []}
    for path in sorted(_files(home), key=lambda p: p.relative_to(home).as_posix()):
        name = path.relative_to(home).as_posix()
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            left_out["a link to nothing"].append(name)
            continue
        except OSError as error:
            raise _unreadable(path, error) from None
        try:
            text.decode("utf-8")
        except UnicodeDecodeError as error:
            left_out["not UTF-8"].append(f"{name} at byte {error.start}")
            continue
        if b"\0" in text:
            left_out["text with a NUL"].append(f"{name} at byte {text.find(0)}")
        elif text.strip():
            texts.append(text)
        else:
            left_out["blank"].append(name)
    notes = [f"left out: folders {', '.join(sorted(_LEFT_OUT))}; files _sysconfigdata*"]
    for rule, names in left_out.items():
        if names:
            notes.append(f"left out, being {rule}: {len(names)} files ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
    return texts, notes


def _files(home):
    """Paths of the sources; a folder that cannot be listed is an error, for its files would be missing in silence."""

    def refuse(error):
        raise _unreadable(error.filename, error)

    for folder, inside, names in os.walk(home, onerror=refuse):
        inside[:] = [name for name in inside if name not in _LEFT_OUT]
        for name in names:  # _sysconfigdata names this machine's paths
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                yield Path(folder, name)


def _unreadable(path, error):
    return ConfigError(
        f"config.data.source = 'stdlib': {path} cannot be read ({error.strerror}), and what is left out is left out by rule only; make it readable, or set data.source=markov"
    )
