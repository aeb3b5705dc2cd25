"""Checkpoints: the only file that knows Orbax.

`Checkpoints` keeps the live state of a cohort; `save_params` and `load_params` keep the final weights of a run.
"""

import logging
import shutil
from pathlib import Path

import jax
import numpy as np


def _orbax():
    for name in ("orbax", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)  # Orbax narrates every save
    import orbax.checkpoint as ocp

    return ocp


class Checkpoints:
    """Steps of a cohort's state below `folder`, the newest `keep` of them."""

    def __init__(self, folder, keep=2):
        ocp = _orbax()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False, create=True)
        self.manager = ocp.CheckpointManager(Path(folder).absolute(), options=options)

    def latest(self):
        """The newest complete step, or None."""
        return self.manager.latest_step()

    def save(self, step, state):
        """Writes the state and returns once it is durable."""
        ocp = _orbax()
        self.manager.save(step, args=ocp.args.StandardSave(state), force=True)
        self.manager.wait_until_finished()

    def restore(self, step, like):
        """The state saved at `step`, shaped and placed as the abstract tree `like`."""
        return self.manager.restore(step, args=_orbax().args.StandardRestore(like))

    def close(self):
        """Releases Orbax's threads."""
        self.manager.close()


def save_params(folder, params):
    """Writes a tree of arrays at `folder`, replacing what is there."""
    folder = Path(folder).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    with _orbax().StandardCheckpointer() as writer:
        writer.save(folder, jax.tree.map(np.asarray, params))


def load_params(folder):
    """The tree `save_params` wrote, as NumPy arrays."""
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no saved parameters; the run they belong to has not finished, or its folder was moved")
    with _orbax().StandardCheckpointer() as reader:
        tree = reader.metadata(folder).item_metadata
        like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)
        return reader.restore(folder, like)
