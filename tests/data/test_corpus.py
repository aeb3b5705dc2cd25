"""Corpora: splits share no text, fingerprints tell data apart, a user's mistakes are named."""

import functools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_jax.data import corpus as corpora
from scaling_jax.data import documents, tokens
from scaling_jax.data.corpus import Corpus, DataConfig, open_corpus
from scaling_jax.records import ConfigError, build

# The standard library


def oracle(text):
    """The set of every four consecutive non-blank lines, no hashing."""
    lines = [line.strip() for line in text.split(b"\n") if line.strip()]
    return {tuple(lines[i : i + 4]) for i in range(max(1, len(lines) - 3))}


stdlib = functools.cache(documents.stdlib)


def test_stdlib_splits_share_no_text():
    splits, _ = stdlib()
    everything = {split: [oracle(text) for text in texts] for split, texts in splits.items()}
    rng = np.random.default_rng(0)
    for split, others in (("test", ("train", "tune")), ("tune", ("train",))):
        for i in rng.permutation(len(everything[split]))[:40]:
            mine = everything[split][i]
            for other in (s for o in others for s in everything[o]):
                assert len(mine & other) < 0.5 * min(len(mine), len(other))


def test_stdlib_is_cut_eighty_ten_ten_and_keeps_tests_out():
    splits, _ = stdlib()
    sizes = {split: sum(map(len, texts)) for split, texts in splits.items()}
    assert 0.7 < sizes["train"] / sum(sizes.values()) < 0.81 and min(sizes.values()) > 0.1 * sum(sizes.values()) - 1
    assert sum(sizes.values()) > 8e6 and not any(b"test.support" in text[:300] for texts in splits.values() for text in texts)


def test_stdlib_corpus_is_the_documents_and_nothing_else():
    corpus = open_corpus(DataConfig())
    splits, _ = stdlib()
    for split, texts in splits.items():
        array = corpus.splits[split]
        assert array.dtype == np.uint8 and not array.flags.writeable
        assert array.tobytes() == b"".join(text + b"\0" for text in texts)
        assert corpus.split_bytes[split] == len(array)  # a separator is a byte too
    assert (corpus.vocab, corpus.entropy_rate) == (256, None)


def test_stdlib_is_the_same_in_a_process_of_another_hash_seed():
    program = "from scaling_jax.data.corpus import *; print(open_corpus(DataConfig()).fingerprint)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env={"PYTHONHASHSEED": "7", "PYTHONPATH": "."}
    )
    assert done.stdout.strip() == open_corpus(DataConfig()).fingerprint, done.stderr


def test_a_corpus_is_kept_whatever_the_windows():
    one = open_corpus(DataConfig())
    assert open_corpus(DataConfig(batch=3, unique_tokens=640, sequence=9, eval_sequences=2, subset_seed=4)) is one


# Splits


LINES = [b"line %d" % i for i in range(1000)]


def text(*ranges):
    return b"\n".join(LINES[i] for start, stop in ranges for i in range(start, stop))


def test_near_duplicates_are_grouped_through_others():
    texts = [
        text((0, 40)),
        text((20, 60)),
        text((500, 540)),
        text((35, 60)),
        text((500, 515), (700, 760)),
        b"",
        text((0, 2)),
        text((0, 2)) + b"\n\n",
    ]
    # 1 holds half of neither 0 nor the other way (17 of 37 shingles); 3 lies inside 1; 4 shares 12 of 37 with 2; 6 and 7 differ by blanks
    groups = documents.near_duplicates(texts)
    assert groups[1] == groups[3] and groups[6] == groups[7]
    assert len({groups[i] for i in (0, 1, 2, 4, 6)}) == 5
    assert len(set(documents.near_duplicates([text((0, 40)), text((18, 60)), text((38, 60))]))) == 1  # 0-1 share 19, 2 lies in 1


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), min_size=1, max_size=8))
def test_near_duplicates_agree_with_brute_force(ranges):
    texts = [text((start, start + size)) for start, size in ranges]
    groups = documents.near_duplicates(texts)
    sets = [oracle(t) for t in texts]
    close = [[len(a & b) >= 0.5 * min(len(a), len(b)) for b in sets] for a in sets]
    reach = np.array(close)
    for _ in texts:
        reach = (reach.astype(int) @ reach) > 0
    np.testing.assert_array_equal(reach, np.equal.outer(groups, groups))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 50), st.integers(0, 9)), min_size=1, max_size=40))
def test_assign_cuts_no_group_and_loses_no_document(rows):
    keys, sizes, groups = zip(*rows, strict=True)
    splits = documents.assign(keys, sizes, groups)
    assert sorted(i for chosen in splits.values() for i in chosen) == list(range(len(rows)))
    sides = [{groups[i] for i in chosen} for chosen in splits.values()]
    assert sum(map(len, sides)) == len(set(groups))
    assert all(splits.values()) or len(set(groups)) < 3 or max(sizes) > 1


# BPE


TEXTS = {
    "train": [b"def add(a, b):\n    return a + b\n" * 20, "naïve café — 数 \t\r\n".encode(), bytes(range(1, 128))],
    "tune": [b"def sub(a, b):\n    return a - b\n"],
    "test": ["Ω never seen before, ünd ðis neither \x7f".encode(), b"x"],
}


def test_bpe_round_trips_and_is_deterministic(tmp_path):
    arrays, tokenizer = tokens.bpe(TEXTS, 300, tmp_path / "one")
    again, twin = tokens.bpe(TEXTS, 300, tmp_path / "two")
    assert tokenizer == twin
    for split, texts in TEXTS.items():
        np.testing.assert_array_equal(arrays[split], again[split])
        assert tokens.decode(tokenizer, arrays[split]).encode() == b"".join(t + b"\0" for t in texts)
        assert np.count_nonzero(arrays[split] == 0) == len(texts) and arrays[split].max() < 300
    assert len(arrays["train"]) < 0.5 * sum(map(len, TEXTS["train"]))  # it learnt something


def test_bpe_learns_from_train_alone(tmp_path):
    _, one = tokens.bpe(TEXTS, 300, tmp_path)
    _, two = tokens.bpe(TEXTS | {"test": [b"zqzqzqzq" * 100]}, 300, tmp_path)
    assert one == two and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:], lambda b: b"", lambda b: b + b"\0"]
)
def test_a_damaged_cache_is_not_read(tmp_path, damage):
    arrays, tokenizer = tokens.bpe(TEXTS, 300, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again, twin = tokens.bpe(TEXTS, 300, tmp_path)
    assert tokenizer == twin and all(np.array_equal(arrays[s], again[s]) for s in TEXTS)
    assert path.read_bytes()[:32] == whole[:32] and list(tmp_path.iterdir()) == [path]


def test_an_intact_cache_is_read(tmp_path, monkeypatch):
    tokens.bpe(TEXTS, 300, tmp_path)
    monkeypatch.setattr(tokens, "_train", lambda *_: pytest.fail("trained again"))
    tokens.bpe(TEXTS, 300, tmp_path)


def test_bpe_corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALING_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(documents, "stdlib", lambda: (TEXTS, ()))
    corpora._open.cache_clear()
    try:
        corpus = open_corpus(DataConfig(tokenizer="bpe", vocab=300))
        assert corpus.splits["train"].dtype == np.uint16 and corpus.vocab == 300
        assert corpus.split_bytes["tune"] == len(TEXTS["tune"][0]) + 1
        assert corpus.fingerprint != open_corpus(DataConfig()).fingerprint
    finally:
        corpora._open.cache_clear()


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("SCALING_JAX_CACHE", str(tmp_path / "own"))
    assert corpora.cache_dir() == tmp_path / "own"
    monkeypatch.delenv("SCALING_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert corpora.cache_dir() == tmp_path / "scaling_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert corpora.cache_dir() == tmp_path / ".cache" / "scaling_jax"


# A user's file and function


def from_file(path, array, **changes):
    np.save(path, array) if path.suffix == ".npy" else array.tofile(path)
    corpora._open.cache_clear()
    return open_corpus(DataConfig(**{"source": "file", "path": str(path), "vocab": 1000} | changes))


@pytest.mark.parametrize("name, dtype", [("a.bin", "uint16"), ("b.bin", "int32"), ("c.npy", "int64"), ("d.npy", ">u2")])
def test_a_file_is_cut_by_document(tmp_path, name, dtype):
    array = np.random.default_rng(0).integers(1, 1000, 5_000).astype(dtype)
    corpus = from_file(tmp_path / name, array, document_tokens=64, **({"dtype": dtype} if name.endswith("bin") else {}))
    pieces = [array[i : i + 64].tolist() for i in range(0, 5_000, 64)]
    found = [tuple(p) for split in corpus.splits.values() for p in pieces if str(p)[1:-1] in str(split.tolist())]
    assert sorted(found) == sorted(map(tuple, pieces))  # every document whole, in one split
    assert len(corpus.splits["train"]) > 3_800 and min(map(len, corpus.splits.values())) >= 500 - 64
    assert corpus.splits["train"].dtype == np.uint16 and corpus.split_bytes["train"] is None


def test_a_separator_ends_documents_and_equal_documents_stay_together(tmp_path):
    rng = np.random.default_rng(1)
    distinct = [np.r_[rng.integers(1, 50, rng.integers(1, 30)), 0] for _ in range(60)]
    array = np.concatenate([distinct[i] for i in rng.integers(0, 60, 400)]).astype("uint16")
    corpus = from_file(tmp_path / "a.bin", array, separator=0, vocab=50)
    sides = [{tuple(piece) for piece in np.split(split, np.flatnonzero(split == 0) + 1) if len(piece)} for split in corpus.splits.values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) and sum(map(len, corpus.splits.values())) == len(array)


def test_fingerprints_tell_data_apart():
    one = dict.fromkeys(corpora.SPLITS, np.arange(9))
    made = [
        corpora.corpus_of("a", v, s, t)
        for v, s, t in (
            (9, one, "x"),
            (10, one, "x"),
            (9, one, "y"),
            (9, one | {"tune": np.arange(8)}, "x"),
            (9, one | {"test": np.arange(9)[::-1]}, "x"),
        )
    ]
    assert len({c.fingerprint for c in made}) == 5
    assert corpora.corpus_of("b", 9, one, "x").fingerprint == made[0].fingerprint
    moved = (
        {"train": np.arange(4), "tune": np.array([4]), "test": np.arange(5)},
        {"train": np.arange(5), "tune": np.array([], int), "test": np.arange(5)},
    )
    assert len({corpora.corpus_of("a", 9, s, "x").fingerprint for s in moved}) == 2


def mine(data):
    return corpora.corpus_of("mine", data.vocab, dict.fromkeys(corpora.SPLITS, np.arange(100) % data.vocab), "mine")


def not_a_corpus(data):
    return 3


def out_of_range(data):
    return corpora.corpus_of(
        "mine", 5, {split: np.array([1, 257 if split == "tune" else 2] * 50) for split in ("train", "tune", "test")}, "none"
    )


def test_a_source_of_ones_own():
    corpus = open_corpus(DataConfig(source="tests.data.test_corpus:mine", vocab=7))
    assert isinstance(corpus, Corpus) and corpus.name == "mine" and corpus.vocab == 7


ARRAY = np.arange(4000, dtype=np.uint16) % 900


@pytest.mark.parametrize(
    "name, content, changes, message",
    [
        ("a.bin", None, {}, r"config.data.path = '.*a.bin': no such file; give"),
        ("a.txt", ARRAY, {}, r"config.data.path = '.*a.txt': neither .bin .* nor .npy; save"),
        ("a.bin", ARRAY[:0], {}, r"config.data.path = '.*': the file is empty; write"),
        ("a.npy", ARRAY[:0], {}, r"config.data.path = '.*': the array is empty; write"),
        ("a.bin", ARRAY[:3].view("uint8")[:5], {}, r"config.data.dtype = 'uint16': the 5 bytes of .* no multiple of its 2; set"),
        ("a.npy", ARRAY.reshape(2, -1), {}, r"config.data.path = '.*': an array of shape \(2, 2000\); save one axis"),
        ("a.npy", ARRAY.astype(float), {}, r"config.data.path = '.*': an array of float64; save integers"),
        ("a.npy", b"nonsense", {}, r"config.data.path = '.*': not a readable .npy file .*; write it with numpy.save"),
        (
            "a.bin",
            ARRAY,
            {"vocab": 800},
            r"config.data.vocab = 800: token 800 at position 800 of .*; set data.vocab above the largest token \(899\)",
        ),
        ("a.npy", ARRAY.astype(int) - 5, {}, r"config.data.vocab = 1000: token -5 at position 0"),
        ("a.bin", ARRAY[:1500], {}, r"config.data.document_tokens = 1024: cuts the 1500 tokens of .* too few .*; set a smaller"),
        ("a.bin", ARRAY, {"separator": 950}, r"config.data.separator = 950: .* too few different documents; leave data.separator out"),
        ("a.bin", ARRAY, {"separator": 1000}, r"config.data.separator = 1000: not a token of data.vocab = 1000; give"),
    ],
)
def test_mistakes_with_a_file_are_named(tmp_path, name, content, changes, message):
    path = tmp_path / name
    with pytest.raises(ConfigError, match=message):
        if content is None:
            open_corpus(DataConfig(source="file", path=str(path)))
        elif isinstance(content, bytes):
            path.write_bytes(content)
            open_corpus(DataConfig(source="file", path=str(path)))
        else:
            from_file(path, content, **changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"source": "file"}, r"config.data.path = None: source 'file' needs a file; set data.path"),
        ({"source": "stdlibs"}, r"config.data.source = 'stdlibs': not one of .* \(did you mean 'stdlib'\?\); your own is named"),
        ({"source": "no.such:thing"}, r"config.data.source = 'no.such:thing': cannot be imported .*; is it on PYTHONPATH"),
        ({"source": "tests.data.test_corpus:not_a_corpus"}, r"config.data.source = '.*': returned int; return"),
        (
            {"source": "tests.data.test_corpus:out_of_range", "vocab": 7},
            r"corpus 'mine': split 'tune' must be one axis of integers from 0 to 4, its vocab being 5",
        ),
        ({"vocab": 300}, r"config.data.vocab = 300: tokenizer 'bytes' has 256 tokens; leave data.vocab out"),
        ({"tokenizer": "bpe"}, r"config.data.vocab = 256: tokenizer 'bpe' needs 257 .*; set data.vocab=4096"),
    ],
)
def test_mistakes_of_a_source_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        open_corpus(DataConfig(**changes))


@pytest.mark.parametrize(
    "mapping, message",
    [
        ({"sequence": 0}, r"config.data.sequence = 0: must be at least 1"),
        ({"unique_tokens": 0}, r"config.data.unique_tokens = 0: must be at least 1"),
        ({"tokenizer": "byte"}, r"config.data.tokenizer = 'byte': not one of 'bytes', 'bpe' \(did you mean 'bytes'\?\)"),
        ({"synthetic": {"zipf": -1.0}}, r"config.data.synthetic.zipf = -1.0: must be at least 0.0"),
        ({"vocab": 1}, r"config.data.vocab = 1: must be at least 2"),
    ],
)
def test_bounds_are_checked(mapping, message):
    with pytest.raises(ConfigError, match=message):
        build(DataConfig, mapping, "config.data")
