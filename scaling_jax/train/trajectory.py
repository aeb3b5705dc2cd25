"""Trajectories: one JSON line per logged step, in segments sealed just before the checkpoint at their end.

A run's `trajectory/` holds `<first step>.jsonl` segments and `manifest.json`, which lists every sealed
segment with its last step and sha256. On resume from step s all that lies behind s is dropped and run again,
so a resumed trajectory equals an undisturbed one byte for byte. Timings live elsewhere, in `timings.jsonl`.
What carries a checksum is verified whenever it is read: a torn or edited file is named, never read as data.
"""

import contextlib
import hashlib
import json
import math
import os
from pathlib import Path

from scaling_jax.records import DamageError

SCHEMA = 2  # from 2 on result.json carries the sha256 of its metrics


class Writer:
    """Appends lines to the open segment; `seal` closes it and opens the next."""

    def __init__(self, folder, start):
        """Opens the trajectory at `start` steps done, dropping everything logged behind it."""
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = [s for s in _manifest(self.folder) if s["last"] <= start]
        for segment in kept:  # what this run goes on from, and will be read at its end
            _verify(self.folder, segment)
        for path in self.folder.glob("*.jsonl"):
            if path.name not in {s["name"] for s in kept}:
                path.unlink()
        self.sealed = kept
        write_json(self.folder / "manifest.json", {"schema": SCHEMA, "segments": self.sealed})
        self._open(start)

    def _open(self, step):
        self.first, self.path, self.file = step, self.folder / f"{step:09d}.jsonl", None

    def log(self, step, values):
        """Adds one line: steps done, then metric name -> number."""
        if self.file is None:
            self.file = open(self.path, "w", encoding="utf-8")
        self.file.write(json.dumps({"step": int(step), **{k: float(v) for k, v in values.items()}}) + "\n")

    def seal(self, step):
        """Closes the open segment, which ends at `step`, and records its checksum."""
        if self.file is not None:
            self.close()
            digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
            self.sealed.append({"name": self.path.name, "first": self.first, "last": int(step), "sha256": digest})
            write_json(self.folder / "manifest.json", {"schema": SCHEMA, "segments": self.sealed})
        self._open(step)

    def close(self):
        """Closes the open segment without sealing it."""
        if self.file is not None and not self.file.closed:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()


def read(run):
    """The trajectory of a run directory as a pandas frame, one row per step, columns such as train/loss, test/loss.

    Raises DamageError naming the segment when a sealed one is missing or was changed, or a line of the open one is torn.
    """
    import pandas as pd

    return pd.DataFrame(_lines(Path(run) / "trajectory"))


def evaluations(run, splits):
    """Where along a run directory's trajectory its `splits` were evaluated, and what they gave: {"step": [...], "test/loss": [...]}."""
    names = [f"{split}/loss" for split in splits]
    lines = [line for line in _lines(Path(run) / "trajectory") if all(name in line for name in names)]
    return {name: [line[name] for line in lines] for name in ("step", *names)}


def _lines(folder):
    """What was logged, {"step": ..., metric: ...} in the order of steps, of sealed segments whose checksums hold and of the open one."""
    lines = {}
    for segment in _manifest(folder):
        _verify(folder, segment)
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                values = json.loads(line)
                lines.setdefault(values["step"], {}).update(values)
            except (ValueError, KeyError, TypeError):
                raise DamageError(f"{path}: line {number} is torn; the run's command drops this open segment and trains it again") from None
    return [lines[step] for step in sorted(lines)]


def timings(run):
    """Seconds of every line of a run directory's timings.jsonl; a line that a kill tore is left out, for nothing rests on them."""
    path = Path(run) / "timings.jsonl"
    out = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            out.append(float(json.loads(line)["seconds"]))
    return out


def write_result(folder, kind, metrics):
    """Writes result.json, which comes last and marks a unit as done; a metric that is not finite (the run diverged) is null there."""
    finite = lambda value: None if isinstance(value, float) and not math.isfinite(value) else value
    metrics = _each(finite, metrics)
    write_json(Path(folder) / "result.json", {"schema": SCHEMA, "kind": kind, "metrics": metrics, "sha256": _digest(metrics)})


def read_result(folder):
    """The metrics of a finished unit, nan where it diverged; None while it is not finished.

    Raises DamageError where the file is torn or its metrics are not those of its sha256.
    """
    path = Path(folder) / "result.json"
    if not path.is_file():
        return None
    content = read_json(path)
    metrics = content.get("metrics")
    if metrics is None or (content.get("schema", 1) >= 2 and content.get("sha256") != _digest(metrics)):
        raise DamageError(f"{path}: its metrics do not match its checksum; delete {path.parent}, and the same command makes them again")
    number = lambda value: math.nan if value is None else value
    return _each(number, metrics)


def _digest(metrics):
    """sha256 of metrics as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(metrics, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _each(change, value):
    """`value` with every leaf of its lists and dicts changed."""
    if isinstance(value, dict):
        return {name: _each(change, entry) for name, entry in value.items()}
    return [_each(change, entry) for entry in value] if isinstance(value, (list, tuple)) else change(value)


def write_json(path, value):
    """Writes JSON so that a reader sees the old file or the new one, never half of one."""
    path = Path(path)
    text = json.dumps(value, indent=1, allow_nan=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_json(path):
    """A JSON object that `write_json` wrote; DamageError where it is none."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        content = error
    if not isinstance(content, dict):
        raise DamageError(f"{path}: torn or edited, it holds no JSON object; restore it, or delete {Path(path).parent} to make it again")
    return content


def _manifest(folder):
    path = Path(folder) / "manifest.json"
    return read_json(path)["segments"] if path.is_file() else []


def _verify(folder, segment):
    path = folder / segment["name"]
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != segment["sha256"]:
        raise DamageError(
            f"{path}: sealed segment is missing or does not match its checksum; restore it, or delete {folder.parent} to train that run again"
        )
