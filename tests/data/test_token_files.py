"""A damaged file of tokens is refused with position, value and remedy; nothing of a file is left unread in silence."""

import io
import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_jax.data import corpus as corpora
from scaling_jax.data import token_files
from scaling_jax.data.corpus import DataConfig, open_corpus
from scaling_jax.records import ConfigError

TOKENS = np.random.default_rng(0).integers(0, 200, 4000)


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


WHOLE = npy(TOKENS.astype("<u2"))
HEAD = len(WHOLE) - 2 * len(TOKENS)


def raw(dtype, **changed):
    tokens = TOKENS.astype(dtype)
    for position, value in changed.items():
        tokens[int(position[1:])] = value
    return tokens.tobytes()


def npz():
    out = io.BytesIO()
    np.savez(out, TOKENS)
    return out.getvalue()


DAMAGES = {
    "torn in a token": ("a.bin", raw("<u2")[:-1], {}, r"dtype = 'uint16': the 7999 bytes of .*; set .* cut off at byte 7998"),
    "torn .npy": ("a.npy", WHOLE[:-1000], {}, rf"promises 4000 tokens of uint16, {len(WHOLE)} bytes, .* ends at byte {len(WHOLE) - 1000}, within token 3500"),
    "torn at the header's end": ("a.npy", WHOLE[:HEAD], {}, rf"ends at byte {HEAD}, within token 0"),
    "torn in the header": ("a.npy", WHOLE[:40], {}, r"not a readable .npy file \(its header, before byte 40"),
    "more than promised": ("a.npy", WHOLE + b"\1\0" * 9, {}, rf"has 18 more, from byte {len(WHOLE)} on, which would not be read"),
    "promises less": ("a.npy", WHOLE.replace(b"(4000,)", b"(3000,)"), {}, r"promises 3000 tokens .* has 2000 more, from byte 6128"),
    "an .npz": ("a.npy", npz(), {}, r"an .npz of several arrays under the name .npy"),
    "objects": ("a.npy", npy(np.arange(3)).replace(b"<i8", b"|O8"), {}, r"an array of object; save integers"),
    "no type": ("a.npy", WHOLE.replace(b"<u2", b"<zz"), {}, r"not a readable .npy file"),
    "uint32 as uint16": ("a.bin", raw("<u4"), {}, r"config.data.dtype = 'uint16': in .* positions 1, 3, 5 .*; set data.dtype=uint32"),
    "int64 as uint16": ("a.bin", raw("<i8"), {}, r"config.data.dtype = 'uint16': .*; set data.dtype=int64"),
    "int64 as uint32": ("a.bin", raw("<i8"), {"dtype": "uint32"}, r"config.data.dtype = 'uint32': .*; set data.dtype=int64"),
    "uint16 as uint8": ("a.bin", raw("<u2"), {"dtype": "uint8"}, r"config.data.dtype = 'uint8': .*; set data.dtype=uint16"),
    "uint8 as uint16": ("a.bin", raw("u1"), {}, r"config.data.vocab = 256: token \d+ at position 0 of .* data.dtype if it was not written as uint16"),
    "big endian": ("a.bin", raw(">u2"), {}, r"config.data.vocab = 256: token \d+ at position 0 of .* data.dtype if"),
    "out of the vocabulary": ("a.bin", raw("<u2", _1234=777, _3000=300), {}, r"token 777 at position 1234 of .* \(at byte 2468; in all 2 of 4000 are\); .* \(777\)"),
    "the first beyond": ("a.bin", raw("<u2", _3999=256), {}, r"token 256 at position 3999 of .* \(at byte 7998; in all 1 "),
    "out of it, .npy": ("a.npy", npy(np.where(np.arange(4000) == 7, 999, TOKENS)), {}, r"token 999 at position 7 of .* \(at byte 184;"),
    "negative": ("a.bin", raw("<i4", _99=-100), {"dtype": "int32"}, r"token -100 at position 99 of .* \(at byte 396; .*without negative numbers"),
    "negative, .npy": ("a.npy", npy(TOKENS - 1), {}, r"token -1 at position \d+ of .*without negative numbers"),
    "never filled": ("a.bin", raw("<u2", _3999=5) + bytes(8192), {}, r"from position 4000 \(byte 8000\) to its end, at position 8096, all tokens are 0"),
    "never begun": ("a.npy", npy(np.zeros(100, "u2")), {}, r"from position 0 \(byte 128\) to its end, at position 100, all tokens are 0"),
}  # fmt: skip


def damaged(tmp_path, name, content, changes):
    path = tmp_path / name
    path.write_bytes(content)
    return DataConfig(**{"source": "file", "path": str(path)} | changes), path


@pytest.mark.parametrize("chunk", [2**22, 64])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(tmp_path, monkeypatch, damage, chunk):
    monkeypatch.setattr(token_files, "_CHUNK", chunk)
    name, content, changes, message = DAMAGES[damage]
    data, path = damaged(tmp_path, name, content, changes)
    with pytest.raises(ConfigError, match=message) as caught:
        open_corpus(data)
    assert str(path) in str(caught.value) and str(caught.value).startswith("config.data.")


@pytest.mark.parametrize("chunk", [2**22, 64])
@pytest.mark.parametrize("dtype", ["<u2", "<i8", ">u4"])
def test_what_is_whole_is_read_whole(tmp_path, monkeypatch, dtype, chunk):
    monkeypatch.setattr(token_files, "_CHUNK", chunk)
    tokens = np.r_[TOKENS, np.zeros(token_files._UNFILLED - 1, int)]  # ends in separators
    data, _ = damaged(tmp_path, "a.npy", npy(tokens.astype(dtype)), {})
    assert token_files.read_tokens(data).tolist() == tokens.tolist()


def test_zeros_between_tokens_are_tokens(tmp_path):
    tokens = np.where(np.arange(4000) % 2, 0, TOKENS + 1).astype("<u2")
    tokens[2001] = 3  # one number in an odd place: no wider type
    data, _ = damaged(tmp_path, "a.bin", tokens.tobytes(), {})
    assert token_files.read_tokens(data).tolist() == tokens.tolist()


@settings(max_examples=300)
@given(st.integers(0, HEAD - 1), st.integers(0, 255))
def test_a_header_changed_anywhere_is_refused_or_promises_every_byte(tmp_path_factory, position, value):
    content = bytearray(WHOLE)
    content[position] = value
    data, _ = damaged(tmp_path_factory.getbasetemp(), "fuzzed.npy", bytes(content), {"vocab": 2**31 - 1})
    try:
        array = token_files.read_tokens(data)
    except ConfigError:
        return
    assert array.nbytes == 2 * len(TOKENS)


def test_the_same_tokens_are_the_same_corpus_in_any_type(tmp_path):
    kinds = {"a.bin": ("<u2", {"dtype": "uint16"}), "b.bin": ("<i8", {"dtype": "int64"}), "c.npy": (">u4", {}), "d.npy": ("u1", {})}
    prints = set()
    for name, (dtype, changes) in kinds.items():
        tokens = TOKENS.astype(dtype)
        content = npy(tokens) if name.endswith("npy") else tokens.tobytes()
        prints.add(open_corpus(damaged(tmp_path, name, content, {"document_tokens": 100} | changes)[0]).fingerprint)
    assert len(prints) == 1


def test_checking_a_mapped_file_takes_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "_CHUNK", 2**14)
    data, _ = damaged(tmp_path, "a.bin", np.tile(TOKENS, 2000).astype("<u2").tobytes()[:-2] + b"\1\1", {})  # 16 MB, the last is bad
    tracemalloc.start()
    with pytest.raises(ConfigError, match="position 7999999"):
        token_files.read_tokens(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e5


def test_a_directory_or_a_pipe_is_no_file(tmp_path):
    (tmp_path / "d.bin").mkdir()
    (tmp_path / "d.bin" / "train.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"d.bin': a directory; give one .bin or .npy file, such as 'train.bin' in it"):
        open_corpus(DataConfig(source="file", path=str(tmp_path / "d.bin")))
    os.mkfifo(tmp_path / "p.bin")
    with pytest.raises(ConfigError, match=r"p.bin': not a regular file"):
        open_corpus(DataConfig(source="file", path=str(tmp_path / "p.bin")))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/a.bin': no such file"):
        open_corpus(DataConfig(source="file", path=str(tmp_path / "file" / "a.bin")))


@pytest.mark.parametrize("closed", ["a.bin", "a.npy", "folder"])
def test_what_may_not_be_read_is_named(closed):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own lies in one that is closed to others
        data, path = damaged(Path(folder), "a.bin" if closed == "folder" else closed, WHOLE, {})
        os.chmod(folder, 0o700 if closed == "folder" else 0o755)
        path.chmod(0)
        program = f"""
import mmap, os
from scaling_jax.data.corpus import *
if os.getuid() == 0: os.seteuid(65534)
else: os.chmod({folder!r}, 0) if {closed!r} == "folder" else None
try: open_corpus(DataConfig(source="file", path={str(path)!r}))
except ConfigError as error: print(error)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "."})
        os.chmod(folder, 0o700)
    assert f"config.data.path = '{path}': cannot be read (Permission denied); make it readable" in done.stdout, done.stderr


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    data, path = damaged(tmp_path, "a.bin", raw("<u2"), {})
    check = token_files._refuse_unfilled

    def while_writing(*args):
        with open(path, "ab") as file:
            file.write(b"\1\0")
        return check(*args)

    monkeypatch.setattr(token_files, "_refuse_unfilled", while_writing)
    with pytest.raises(ConfigError, match=r"a.bin': the file changed while it was read; start again"):
        open_corpus(data)


def test_a_file_that_changes_while_the_process_runs_is_refused_and_taken_back(tmp_path):
    data, path = damaged(tmp_path, "a.bin", raw("<u2"), {"document_tokens": 100})
    began = open_corpus(data)
    path.write_bytes(raw("<u2", _50=3 if TOKENS[50] != 3 else 4))
    os.utime(path, ns=(1, 1))
    with pytest.raises(ConfigError, match=rf"a.bin': its tokens changed while this process runs \(fingerprint {began.fingerprint}, now "):
        open_corpus(data)
    path.write_bytes(raw("<u2"))
    os.utime(path, ns=(2, 2))  # touched, the same tokens
    assert open_corpus(data).fingerprint == began.fingerprint


@pytest.mark.parametrize(
    "splits, message",
    [
        ({"train": TOKENS, "tune": TOKENS}, r"corpus 'mine': has no split 'test'; give tokens for train, tune, test"),
        ({"train": TOKENS, "tune": TOKENS, "test": np.r_[TOKENS, -1]}, r"split 'test' must be .*; token -1 stands at position 4000"),
        ({"train": TOKENS, "tune": TOKENS * 1.0, "test": TOKENS}, r"split 'tune' must be .*; it is float64 of shape \(4000,\)"),
    ],
)
def test_a_corpus_of_ones_own_is_checked(splits, message):
    with pytest.raises(ConfigError, match=message):
        corpora.corpus_of("mine", 200, splits, "none")
