"""Checkpoints: the only file that knows Orbax.

`Checkpoints` keeps the live state of a cohort; `save_params` and `load_params` keep the final weights of a run. Both carry a digest of
every leaf in the same atomic step and check it on the way back, because Orbax restores flipped bytes silently and never walks back.
"""

import logging
import shutil
from pathlib import Path

import jax
import numpy as np

from scaling_jax.records import DamageError
from scaling_jax.train import digest

SCHEMA = 1
DAMAGED = "damaged"  # where steps that did not come back as they were saved are moved, below the folder of checkpoints


def _orbax():
    for name in ("orbax", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)  # Orbax narrates every save
    import orbax.checkpoint as ocp

    return ocp


class Checkpoints:
    """Steps of a cohort's state below `folder`, the newest `keep` of them."""

    def __init__(self, folder, keep=2):
        ocp = _orbax()
        self.folder = Path(folder).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False, create=True)
        self.manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, step, state):
        """Writes the state with its digests, in one atomic step, and returns once it is on disk; a failed save raises."""
        args = _orbax().args
        written = self.manager.save(
            step, args=args.Composite(state=args.StandardSave(state), digests=args.JsonSave(_digests(state))), force=True
        )
        self.manager.wait_until_finished()
        if not written or not (self.folder / str(step)).is_dir():
            raise DamageError(f"{self.folder / str(step)}: the checkpoint was not written; the one before it is intact")

    def restore(self, like):
        """(step, state, notes): the newest step that comes back as it was saved, shaped and placed as the abstract tree `like`.

        A step that does not is moved to `damaged/` and named in `notes`. (None, None, ()) where nothing was ever saved.
        Raises:
          DamageError: steps were saved and none is left.
        """
        notes = []
        for step in sorted(self.manager.all_steps(), reverse=True):
            try:
                return step, self._checked(step, like), tuple(notes)
            except Exception as error:
                notes.append(f"checkpoint {self._quarantine(step)} is damaged and was set aside: {_first_line(error)}")
        if notes or self._set_aside():
            before = "".join(f"; {note}" for note in notes)
            raise DamageError(
                f"{self.folder}: no undamaged checkpoint is left{before}. Delete {self.folder.parent} to train its runs from the start"
            )
        return None, None, ()

    def _checked(self, step, like):
        args = _orbax().args
        found = self.manager.restore(step, args=args.Composite(state=args.StandardRestore(like), digests=args.JsonRestore()))
        _compare(found["digests"], found["state"])
        return found["state"]

    def _quarantine(self, step):
        """Moves a step out of Orbax's sight; returns where it lies now."""
        home = self.folder / DAMAGED
        home.mkdir(exist_ok=True)
        target = home / f"{step}.{len(list(home.iterdir()))}"
        shutil.move(self.folder / str(step), target)
        self.manager.reload()
        return target

    def _set_aside(self):
        home = self.folder / DAMAGED
        return home.is_dir() and any(home.iterdir())

    def close(self):
        """Releases Orbax's threads."""
        self.manager.close()


def save_params(folder, params):
    """Writes a tree of arrays with their digests at `folder`, replacing what is there."""
    ocp, folder = _orbax(), Path(folder).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    arrays = jax.tree.map(np.asarray, params)
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
        writer.save(folder, args=ocp.args.Composite(params=ocp.args.StandardSave(arrays), digests=ocp.args.JsonSave(_digests(arrays))))


def load_params(folder):
    """The tree `save_params` wrote, as NumPy arrays.

    Raises:
      FileNotFoundError: nothing was saved there. DamageError: what was saved does not come back.
    """
    ocp, folder = _orbax(), Path(folder).absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no saved parameters; the run they belong to has not finished, or its folder was moved")
    try:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            tree = reader.metadata(folder / "params").item_metadata
        like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            found = reader.restore(folder, args=ocp.args.Composite(params=ocp.args.StandardRestore(like), digests=ocp.args.JsonRestore()))
        _compare(found["digests"], found["params"])
    except Exception as error:
        raise DamageError(
            f"{folder}: the saved parameters are damaged ({_first_line(error)}); delete {folder.parent}, and the same command trains that run again"
        ) from error
    return found["params"]


def _digests(tree):
    return {"schema": SCHEMA, "version": digest.VERSION, "leaves": digest.of_tree(tree)}


def _compare(saved, tree):
    if not isinstance(saved, dict) or saved.get("version") != digest.VERSION:
        raise DamageError("its digests are missing or of an unknown version")
    if names := digest.differing(saved["leaves"], digest.of_tree(tree)):
        raise DamageError(f"{names[0]} does not match its digest" + (f", nor do {len(names) - 1} more leaves" if names[1:] else ""))


def _first_line(error):
    return f"{type(error).__name__}: {error}".splitlines()[0][:200] if not isinstance(error, DamageError) else str(error)
