"""Simulation units: how one is run, what it leaves behind, and the rows it gives."""

import dataclasses
import json
import math
import time
from pathlib import Path

from scaling_jax import records
from scaling_jax.records import ConfigError
from scaling_jax.train import trajectory

SCHEMA = 1
UNKNOWN = 1e6  # any metric of a simulation (or loss of a run) that a forecast only imagines: all equal, so the first asked for wins


class Imagined(dict):
    """Metrics of a simulation that has not run: whatever is asked for is `UNKNOWN`, and there are no rows."""

    def __bool__(self):
        return True

    def __missing__(self, name):
        return [] if name == "rows" else UNKNOWN

    def get(self, name, default=None):
        """`default` is for metrics a simulation may leave out, and says nothing about one that has not run."""
        return self[name]

    def __contains__(self, name):
        return True


def run(unit, workdir):
    """Runs the simulation `unit`, writes runs/<identity>/{config.json,timings.jsonl,result.json}; returns its metrics.

    Raises:
      ConfigError: the simulation refuses its settings. RuntimeError: it failed, or returned what is no metric; both name the settings.
    """
    what = unit.config
    folder = Path(workdir) / "runs" / unit.identity
    folder.mkdir(parents=True, exist_ok=True)
    config = {"function": what.function.__qualname__, "settings": records.to_dict(what.settings), "seed": what.seed}
    trajectory.write_json(folder / "config.json", {"schema": SCHEMA, "config": config})
    begin = time.perf_counter()
    try:
        metrics = what.function(what.settings, what.seed)
        _check(metrics)
    except ConfigError as error:
        raise ConfigError(f"{name(unit)}: {error}") from error
    except Exception as error:
        raise RuntimeError(f"{name(unit)} failed: {type(error).__name__}: {error}") from error
    with open(folder / "timings.jsonl", "w", encoding="utf-8") as file:  # a first attempt that was killed left nothing
        file.write(json.dumps({"seconds": time.perf_counter() - begin}) + "\n")
    trajectory.write_result(folder, "simulate", metrics)
    return trajectory.read_result(folder)  # what a second start will read: lists for tuples, plain numbers


def seconds(units, workdir):
    """Seconds that each of the finished `units` took, where that was kept."""
    return [seconds for unit in units for seconds in trajectory.timings(Path(workdir) / "runs" / unit.identity)]


def name(unit):
    """A simulation in words: "simulate(n=8, rounds=20), seed 3"."""
    settings = unit.config.settings
    fields = ", ".join(f"{f.name}={getattr(settings, f.name)!r}" for f in dataclasses.fields(settings))
    return f"{unit.config.function.__qualname__}({fields}), seed {unit.config.seed}"


def rows(unit, metrics):
    """The rows of a simulation: its settings, labels, seed and scalar metrics; one row, or one for each dict of metrics["rows"].

    A row with a key "run" (text) depends on that run alone, as a published one that the simulation read, and may name its cell under
    "cell"; rows that name one run are one observation, as published runs of one size that err together. All others depend on the
    simulation.
    """
    shared = {**_flat(records.to_dict(unit.config.settings)), **unit.label, "seed": unit.config.seed}
    shared |= {key: value for key, value in metrics.items() if not isinstance(value, (list, dict))}
    out = []
    for row in metrics.get("rows", [{}]):
        if "run" in row and not (isinstance(row["run"], str) and row["run"]):
            raise ValueError(f"{name(unit)}: run = {row['run']!r} in a row: expected text that names the run")
        own = f"{unit.identity}/{row['run']}" if "run" in row else unit.identity
        out.append({**shared, **row, "runs": (own,)})
    return out


def _flat(settings, prefix=""):
    """Fields of nested records under dotted names."""
    out = {}
    for key, value in settings.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


def _check(metrics):
    """Refuses what would not come back from a file as it went in."""
    if not isinstance(metrics, dict):
        raise TypeError(f"it returned {type(metrics).__name__}, expected a dict of metrics")
    entries = metrics.get("rows", [])
    if not isinstance(entries, list) or not all(isinstance(row, dict) for row in entries):
        raise TypeError("metrics['rows']: expected a list of dicts, one a row")
    for key, value in metrics.items():
        _check_value(value, f"metrics[{key!r}]")


def _check_value(value, where):
    if isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}: expected text")
            _check_value(entry, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for i, entry in enumerate(value):
            _check_value(entry, f"{where}[{i}]")
    elif not isinstance(value, (bool, int, float, str)):
        raise TypeError(
            f"{where} is a {type(value).__name__}: expected float, int, text, or a list or dict of those (nan where there is none)"
        )
    elif isinstance(value, float) and math.isinf(value):
        raise ValueError(f"{where} = {value}: expected a finite number, or nan where there is none")
