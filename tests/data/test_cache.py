"""The kept tokenisation: damage is named and never read, a killed one goes on, two at once do not disturb each other."""

import multiprocessing
import random
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from scaling_jax.data import cache, documents, tokens
from scaling_jax.records import ConfigError


def text(seed, words):
    rng = random.Random(seed)
    return " ".join(
        rng.choice("alpha beta gamma naïve — 数 def return x12 \n".split(" ")) + str(rng.randrange(99)) for _ in range(words)
    ).encode()


TEXTS = {
    "train": [text(i, 300) for i in range(12)],
    "tune": [text(100 + i, 300) for i in range(3)],
    "test": [text(200 + i, 300) for i in range(3)],
}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(tokens, "_PART", 4000)  # two documents each


@pytest.fixture
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    held = tokens.bpe(TEXTS, 300, folder)
    (path,) = folder.iterdir()
    return held, path


def same(one, two):
    return one[1] == two[1] and all(np.array_equal(one[0][s], two[0][s]) and one[0][s].dtype == two[0][s].dtype for s in TEXTS)


# The final file


def edited(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda b: b"", "torn, it ends after 0 bytes; tokenising again"),
        (lambda b: b[:39], "torn, it ends after 39 bytes; tokenising again"),
        (lambda b: b[: len(b) // 2], "torn, it ends after {half} bytes of {all}; tokenising again"),
        (lambda b: b[:-1], "torn, it ends after {but_one} bytes of {all}; tokenising again"),
        (lambda b: edited(b, 5), "damaged or edited, its {all} bytes do not have the checksum"),
        (lambda b: edited(b, 1000), "damaged or edited, its {all} bytes do not have the checksum"),
        (lambda b: edited(b, len(b) - 1), "damaged or edited"),
        (lambda b: b + b"\0", "damaged or edited"),
        (lambda b: b"\0" * len(b), "damaged or edited"),
    ],
)
def test_damage_is_named_and_mended(undisturbed, capsys, damage, said):
    held, path = undisturbed
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert same(tokens.bpe(TEXTS, 300, path.parent), held)
    said = said.format(all=len(whole), half=len(whole) // 2, but_one=len(whole) - 1)
    assert f"{path}: {said}" in capsys.readouterr().err
    assert path.read_bytes() == whole and list(path.parent.iterdir()) == [path]
    tokens.bpe(TEXTS, 300, path.parent)
    assert capsys.readouterr().err == ""


def test_one_cache_in_the_place_of_another_is_not_read(undisturbed, tmp_path, capsys):
    held, path = undisturbed
    tokens.bpe(TEXTS | {"test": TEXTS["tune"]}, 300, tmp_path)
    (other,) = tmp_path.iterdir()
    path.write_bytes(other.read_bytes())
    assert same(tokens.bpe(TEXTS, 300, path.parent), held)
    assert "damaged or edited" in capsys.readouterr().err


def test_a_text_with_the_separator_is_not_taken_for_two(tmp_path):
    tokens.bpe(TEXTS | {"test": [b"a", b"b"]}, 300, tmp_path)
    with pytest.raises(ConfigError, match="a NUL at offset 1"):
        tokens.bpe(TEXTS | {"test": [b"a\0b"]}, 300, tmp_path)


# A tokenisation cut short


def cut_after(monkeypatch, count):
    """Makes the tokenisation fail after `count` parts of documents, as a kill would."""
    encode, done = tokens._encode, []

    def some(*args):
        if len(done) == count:
            raise KeyboardInterrupt
        done.append(args)
        return encode(*args)

    monkeypatch.setattr(tokens, "_encode", some)


def test_what_was_finished_is_not_done_again(undisturbed, tmp_path, monkeypatch, capsys):
    held, path = undisturbed
    encode, train, calls = tokens._encode, tokens._train, []
    cut_after(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        tokens.bpe(TEXTS, 300, tmp_path)
    (parts,) = tmp_path.iterdir()
    finished = sorted(p.name for p in parts.iterdir())
    assert len(finished) == 6 and "tokenizer" in finished
    monkeypatch.setattr(tokens, "_encode", lambda *args: calls.append("encode") or encode(*args))
    monkeypatch.setattr(tokens, "_train", lambda *args: calls.append("train") or train(*args))
    assert same(tokens.bpe(TEXTS, 300, tmp_path), held)
    total = sum(len(tokens._cuts(texts)) for texts in TEXTS.values())
    assert calls == ["encode"] * (total - 5)
    assert f"a tokenisation cut short has gone on, 6 of its {total + 1} parts were finished" in capsys.readouterr().err
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [path.read_bytes()]


@pytest.mark.parametrize("damage", [lambda b: b[:-3], lambda b: edited(b, 60), None])
def test_a_damaged_part_is_named_and_made_again(undisturbed, tmp_path, monkeypatch, capsys, damage):
    held, path = undisturbed
    with monkeypatch.context() as patch:
        cut_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            tokens.bpe(TEXTS, 300, tmp_path)
    (parts,) = tmp_path.iterdir()
    first, second = sorted(p for p in parts.iterdir() if p.name.startswith("train"))[:2]
    first.write_bytes(damage(first.read_bytes()) if damage else second.read_bytes())  # or one part in the place of another
    assert same(tokens.bpe(TEXTS, 300, tmp_path), held)
    err = capsys.readouterr().err
    assert f"{first}: " in err and "making this part again" in err and "5 of its" in err
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [path.read_bytes()]


# Processes are forked from one that has all imports, so that a kill falls into the work.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.data.test_cache", "tokenizers", "numpy.lib.npyio"])


def build(folder, log):
    """What a child does."""
    with open(log, "a") as sys.stderr:
        tokens._PART = 4000
        tokens.bpe({split: texts * 8 for split, texts in TEXTS.items()}, 300, folder)


def start(folder):
    process = SERVER.Process(target=build, args=(folder, folder.parent / "log"))
    process.start()
    return process


def finish(*processes):
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path):
    finish(start(tmp_path / "warm"))
    begin = time.perf_counter()
    finish(start(tmp_path / "undisturbed"))
    seconds = time.perf_counter() - begin
    (whole,) = (tmp_path / "undisturbed").iterdir()
    seed = random.randrange(10**6)
    rng, folder, kept = random.Random(seed), tmp_path / "killed", [0]
    for _ in range(4):
        process = start(folder)
        time.sleep(rng.uniform(0, 0.7 * seconds))
        process.kill()
        process.join()
        finals = list(folder.glob("*.npz"))
        assert all(p.read_bytes() == whole.read_bytes() for p in finals), f"seed {seed}"
        kept.append(len([p for p in folder.glob("*.parts/*") if not p.name.startswith(".")]))
        assert finals or kept[-1] >= kept[-2], f"seed {seed}: {kept}"  # nothing finished is lost
    finish(start(folder))
    assert [p.name for p in folder.iterdir()] == [whole.name], f"seed {seed}"  # nothing of the killed ones is left
    assert (folder / whole.name).read_bytes() == whole.read_bytes(), f"seed {seed}"
    said = (tmp_path / "log").read_text()
    assert "torn" not in said and "damaged" not in said, f"seed {seed}: {said}"


def test_processes_that_build_the_same_at_once(tmp_path):
    finish(start(tmp_path / "alone"))
    finish(*[start(tmp_path / "shared") for _ in range(2)])
    (whole,), (shared,) = (tmp_path / "alone").iterdir(), (tmp_path / "shared").iterdir()
    assert shared.name == whole.name and shared.read_bytes() == whole.read_bytes()
    said = (tmp_path / "log").read_text()
    assert not any(word in said for word in ("damaged", "torn", "cannot")), said


# A cache that cannot be kept


def test_a_cache_that_cannot_be_written_is_said_once_and_done_without(undisturbed, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert same(tokens.bpe(TEXTS, 300, tmp_path / "file" / "inside"), undisturbed[0])
    err = capsys.readouterr().err
    assert err.count("cannot be written") == 1 and "set SCALING_JAX_CACHE" in err


def test_no_room_leaves_nothing_half_written(undisturbed, tmp_path, capsys):
    held, path = undisturbed
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))  # parts fit, the whole does not
    try:
        found = tokens.bpe(TEXTS, 300, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert same(found, held)
    assert "cannot be written" in capsys.readouterr().err
    assert not list(Path(tmp_path).rglob(".*")) and not list(tmp_path.glob("*.npz"))
    assert same(tokens.bpe(TEXTS, 300, tmp_path), held) and (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_an_unreadable_cache_is_named(tmp_path, capsys):
    (tmp_path / "a.npz").mkdir()
    assert cache.load(tmp_path / "a.npz", "a", "making it again") is None
    assert f"{tmp_path}/a.npz: cannot be read (Is a directory); making it again" in capsys.readouterr().err


# Text


@pytest.mark.parametrize(
    "bad, message",
    [
        (
            b"good \xe9t\xe9",
            r"document 3 of split 'tune' \(it begins .*\): byte 0xe9 at offset 5 is not UTF-8 \(invalid continuation byte\)",
        ),
        (b"cut short \xe6\x95", r"document 3 of split 'tune' .*: byte 0xe6 at offset 10 is not UTF-8 \(unexpected end of data\)"),
        (b"two\0parts", r"document 3 of split 'tune' .*: a NUL at offset 3, and NUL ends a document"),
    ],
)
def test_bad_text_is_named_before_anything_is_learnt(tmp_path, monkeypatch, bad, message):
    monkeypatch.setattr(tokens, "_train", lambda *_: pytest.fail("trained on it"))
    with pytest.raises(ConfigError, match=message):
        tokens.bpe(TEXTS | {"tune": [*TEXTS["tune"], bad]}, 300, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_the_standard_library_leaves_out_is_told(tmp_path):
    for name, content in {
        "a.py": b"x = 1\n",
        "b.py": b"# caf\xe9\n",
        "c.py": b"a\0b",
        "d.py": b" \n",
        "tests/e.py": b"y = 1\n",
        "pack/f.py": b"z = 1\n",
        "_sysconfigdata_x.py": b"here = 1\n",
        "g.txt": b"no\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "h.py").symlink_to("nowhere.py")
    texts, notes = documents._sources(tmp_path)
    assert texts == [b"x = 1\n", b"z = 1\n"]
    assert notes == [
        "left out: folders __pycache__, _bundled, dist-packages, encodings, idle_test, site-packages, test, tests; files _sysconfigdata*",
        "left out, being not UTF-8: 1 files (b.py at byte 5)",
        "left out, being text with a NUL: 1 files (c.py at byte 1)",
        "left out, being blank: 1 files (d.py)",
        "left out, being a link to nothing: 1 files (h.py)",
    ]


def test_a_source_that_cannot_be_read_is_no_reason_to_leave_it_out(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.py").symlink_to("b.py")
    with pytest.raises(ConfigError, match=r"config.data.source = 'stdlib': .*/b.py cannot be read \(Too many levels of symbolic links\)"):
        documents._sources(tmp_path)
    with pytest.raises(ConfigError, match=r"nowhere cannot be read \(No such file or directory\)"):
        documents._sources(tmp_path / "nowhere")
