"""Documents into splits: near-duplicates stay on one side, sides are drawn by a keyed hash of the content."""

import hashlib
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
    texts, skipped = _sources(Path(sysconfig.get_path("stdlib")))
    keys = [content_hash(text) for text in texts]
    groups = near_duplicates(texts)
    splits = assign(keys, [len(text) + 1 for text in texts], groups)
    if not all(splits.values()):
        raise ConfigError(
            f"config.data.source = 'stdlib': only {len(texts)} Python sources in {sysconfig.get_path('stdlib')}; install python with its library, or set data.source=markov"
        )
    notes = (
        f"{len(texts)} documents in {len(set(groups))} groups of near-duplicates",
        f"{skipped} sources skipped (not UTF-8, or with a NUL)",
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
    texts, skipped = [], 0
    for path in sorted(home.rglob("*.py"), key=lambda p: p.relative_to(home).as_posix()):
        inside = path.relative_to(home)
        if _LEFT_OUT & set(inside.parts[:-1]) or inside.name.startswith("_sysconfigdata"):  # the latter names this machine's paths
            continue
        text = path.read_bytes()
        try:
            text.decode("utf-8")
        except UnicodeDecodeError:
            skipped += 1
            continue
        if b"\0" in text:
            skipped += 1
        elif text.strip():
            texts.append(text)
    return texts, skipped
