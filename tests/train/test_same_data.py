"""A run is refused, not begun anew, when the tokens it was trained on have changed; from the command line."""

import numpy as np
import pytest

from scaling_jax import cli
from scaling_jax import config as cfg
from scaling_jax.data import corpus as corpora
from scaling_jax.records import ConfigError
from scaling_jax.studies import runner
from scaling_jax.train import same_data

TOKENS = np.random.default_rng(0).integers(0, 200, 6000).astype("<u2")


@pytest.fixture
def fresh():
    """Forgets what the process has opened, as another process would."""

    def forget():
        corpora._open.cache_clear()
        corpora._began.cache_clear()

    yield forget
    forget()


def overrides(path, *more):
    arguments = ["--config.data.source=file", f"--config.data.path={path}"]
    arguments += ["--config.data.document_tokens=300", "--config.data.unique_tokens=None", "--config.data.eval_sequences=2"]
    arguments += ["--config.model.width=8", "--config.model.layers=1", "--config.model.heads=1", "--config.train.epochs=0.1", *more]
    return arguments


def train(folder, path):
    return cli.main(["train", "--config=tiny", f"--workdir={folder}", *overrides(path)])


def _bound(path, *more):
    run = cfg.resolve(cfg.load("tiny"), cfg.overrides(overrides(path, *more)))
    corpus = corpora.open_corpus(run.data)
    return cfg.bind(run, corpus), corpus


def test_a_token_file_that_changed_between_starts(tmp_path, fresh, capsys):
    path, folder = tmp_path / "a.bin", tmp_path / "work"
    TOKENS.tofile(path)
    assert train(folder, path) == 0
    (run,) = (folder / "runs").iterdir()
    out = capsys.readouterr().out
    assert "corpus a.bin: " in out and "6000 tokens in 20 documents" in out
    kept = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    for changed in (np.where(np.arange(6000) == 5000, TOKENS[5000] ^ 1, TOKENS), np.r_[TOKENS, TOKENS[:900]]):  # edited; grown
        changed.astype("<u2").tofile(path)
        fresh()
        assert train(folder, path) == 2
        err = capsys.readouterr().err
        assert f"config.data.path = '{path}': its tokens have fingerprint" in err and f"{run} was trained on" in err
        assert "the file has changed; put the tokens back to go on, or choose another --workdir" in err
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == kept
    # The same tokens elsewhere, other tokens elsewhere, and another run on the changed file are no change of this run's file.
    TOKENS.tofile(tmp_path / "moved.bin")
    (TOKENS // 2).tofile(tmp_path / "other.bin")
    assert train(folder, tmp_path / "moved.bin") == 0 and list((folder / "runs").iterdir()) == [run]
    bound, corpus = _bound(tmp_path / "other.bin")
    same_data.refuse_changed(folder, bound, corpus)
    bound, corpus = _bound(path, "--config.seed=1")
    same_data.refuse_changed(folder, bound, corpus)
    bound, corpus = _bound(path, "--config.train.log_every=7")  # recorded only: the same run
    with pytest.raises(ConfigError, match="the file has changed"):
        same_data.refuse_changed(folder, bound, corpus)
    TOKENS.tofile(path)
    fresh()
    capsys.readouterr()
    assert train(folder, path) == 0
    assert f"run {run.name}" in capsys.readouterr().out


def test_a_run_whose_config_is_damaged_is_named(tmp_path, fresh, capsys):
    path, folder = tmp_path / "a.bin", tmp_path / "work"
    TOKENS.tofile(path)
    assert train(folder, path) == 0
    (config,) = folder.glob("runs/*/config.json")
    config.write_text(config.read_text()[:100])
    assert train(folder, path) == 2
    assert f"{config}: cannot be read as the config of a run" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["torn", "out"])
def test_a_damaged_file_is_named_before_anything_is_made(tmp_path, capsys, damage):
    path, folder = tmp_path / "a.bin", tmp_path / "work"
    path.write_bytes(TOKENS.tobytes()[:-1] if damage == "torn" else np.where(np.arange(6000) == 77, 256, TOKENS).astype("<u2").tobytes())
    assert train(folder, path) == 2
    err = capsys.readouterr().err
    assert str(path) in err and err.count("\n") == 1 and ("byte 11998" if damage == "torn" else "token 256 at position 77") in err
    with pytest.raises(ConfigError, match=str(path)):
        runner.run("infinite_compute", "smoke", folder, overrides={"data.source": "file", "data.path": str(path)}, quiet=True)
    assert not folder.exists()


def test_a_study_whose_tokens_changed_names_the_file(tmp_path):
    base = cfg.resolve(cfg.load("tiny"), {"data.source": "file", "data.path": "a.bin"})
    runner.trajectory.write_json(tmp_path / "study.json", {"corpus": "1" * 16})
    with pytest.raises(ConfigError, match=r"config.data.path = 'a.bin': its tokens have fingerprint 2{16}, and .* was begun on 1{16}; put"):
        runner._refuse_foreign(tmp_path, {"corpus": "2" * 16}, base)
