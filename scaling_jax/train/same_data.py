"""A run goes on with the tokens it began with, or is refused: it never begins anew, unasked, on a file that has changed."""

import dataclasses
import json
from pathlib import Path

from scaling_jax.records import ConfigError


def refuse_changed(workdir, run, corpus):
    """Raises ConfigError where `workdir` holds the bound run `run`, from the same path, on other tokens than `corpus` has."""
    for path in sorted(Path(workdir).glob("runs/*/config.json")):
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            theirs, config = held["corpus"], held["config"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}: cannot be read as the config of a run ({error}), so what the run was trained on is unknown; restore it, or delete {path.parent}"
            ) from None
        if theirs != corpus.fingerprint and config["data"].get("path") == run.data.path and _same(run, config):
            data = run.data
            what = f"config.data.path = {data.path!r}" if data.source == "file" else f"config.data.source = {data.source!r}"
            how = (
                "the file has changed"
                if data.source == "file"
                else "the text has changed (another Python, another version of the generator)"
            )
            raise ConfigError(
                f"{what}: its tokens have fingerprint {corpus.fingerprint}, and {path.parent} was trained on {theirs}: {how}; put the tokens back to go on, or choose another --workdir for the new ones"
            )


def _same(record, held, path=""):
    """Whether the nested dicts `held` are `record`, recorded fields aside; a field they lack counts as off."""
    for f in dataclasses.fields(record):
        name, value = f"{path}{f.name}", getattr(record, f.name)
        if f.metadata.get("recorded") or (name == "train.steps" and record.epochs is not None):  # steps of an epoch follow the data
            continue
        theirs = held.get(f.name, f.metadata.get("off"))
        if dataclasses.is_dataclass(value):
            if not isinstance(theirs, dict) or not _same(value, theirs, f"{name}."):
                return False
        elif theirs != (list(value) if isinstance(value, tuple) else value):
            return False
    return True
