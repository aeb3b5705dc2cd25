"""Checkpoints: digests travel with them, damage is set aside, the newest good step is used, and where none is left that is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling_jax.records import DamageError
from scaling_jax.train import checkpoint

# After a failed read Orbax closes its event loop under reads that are still going on; they complain into the void.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def tree(seed):
    rng = np.random.default_rng(seed)
    return {
        "a": jnp.asarray(rng.standard_normal((64, 64)), jnp.float32),
        "b": {"c": jnp.asarray(rng.integers(0, 9, 5)), "d": jnp.float32(seed)},
    }


def like(one):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), one)


def saved(folder, steps=(1, 2, 3)):
    keeper = checkpoint.Checkpoints(folder, keep=3)
    for step in steps:
        keeper.save(step, tree(step))
    keeper.close()


def restored(folder):
    keeper = checkpoint.Checkpoints(folder, keep=3)
    try:
        return keeper.restore(like(tree(0)))
    finally:
        keeper.close()


def flip(folder):
    """One bit of the largest file, which holds the numbers: Orbax does not notice."""
    path = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_nothing_saved_is_no_damage(tmp_path):
    assert restored(tmp_path) == (None, None, ())


def test_the_newest_step_comes_back(tmp_path):
    saved(tmp_path)
    step, found, notes = restored(tmp_path)
    assert step == 3 and equal(found, tree(3)) and notes == ()


def test_a_damaged_step_is_set_aside_by_name_and_the_one_before_is_used(tmp_path):
    saved(tmp_path)
    flip(tmp_path / "3")
    step, found, notes = restored(tmp_path)
    assert step == 2 and equal(found, tree(2))
    assert len(notes) == 1 and str(tmp_path / "damaged" / "3.0") in notes[0] and "does not match its digest" in notes[0]
    assert not (tmp_path / "3").exists() and (tmp_path / "damaged" / "3.0").is_dir()
    assert restored(tmp_path)[2] == (), "once"
    keeper = checkpoint.Checkpoints(tmp_path, keep=3)
    keeper.save(3, tree(3))
    keeper.close()
    assert restored(tmp_path)[0] == 3, "and its place can be taken again"


def test_without_its_digests_a_step_is_damaged(tmp_path):
    saved(tmp_path)
    for path in (tmp_path / "3" / "digests").rglob("*"):
        path.unlink()
    assert restored(tmp_path)[0] == 2


def test_where_no_good_step_is_left_that_is_said(tmp_path):
    home = tmp_path / "cohort" / "checkpoints"
    saved(home, (1, 2))
    for step in (1, 2):
        flip(home / str(step))
    for _ in range(2):  # now, and at the next start
        with pytest.raises(DamageError, match=r"no undamaged checkpoint is left.*Delete .*cohort to train"):
            restored(home)


def test_damaged_parameters_are_named(tmp_path):
    checkpoint.save_params(tmp_path / "params", tree(1))
    assert equal(checkpoint.load_params(tmp_path / "params"), tree(1))
    flip(tmp_path / "params")
    with pytest.raises(DamageError, match=r"params: the saved parameters are damaged .a does not match its digest.; delete"):
        checkpoint.load_params(tmp_path / "params")
    with pytest.raises(FileNotFoundError, match="no saved parameters"):
        checkpoint.load_params(tmp_path / "nothing")
