"""Trajectories of a researcher's own runs: what each run logged at which step, and rows of them for law fits.

Tables (wide or long), exports of Weights & Biases, TensorBoard's event files and our own run directories are read. Nothing logged
is left out without a note; a value that is not finite is a result and is kept.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaling_jax.laws import event_files, trajectory_tables
from scaling_jax.laws.tables import KINDS
from scaling_jax.records import ConfigError, suggest


@dataclass(frozen=True)
class Trajectories:
    """What runs logged.

    series: run -> metric -> pandas Series, float64, of the logged values by ascending step; nan where nan was logged, no entry
    where nothing was. config: run -> name -> value. notes: what a reader must know, such as steps that were logged twice.
    """

    series: Mapping
    config: Mapping
    notes: tuple = ()

    @property
    def metrics(self):
        """Names of all metrics, in order of first appearance."""
        return tuple(dict.fromkeys(name for series in self.series.values() for name in series))

    @property
    def frame(self):
        """A pandas frame with the columns run, step and one per metric; nan where a metric was not logged (or logged as nan)."""
        import pandas as pd

        parts = []
        for run, series in self.series.items():
            if series:
                parts.append(pd.DataFrame(dict(series)).rename_axis("step").reset_index())
                parts[-1].insert(0, "run", run)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["run", "step"])


def read_trajectories(path, columns=None, metrics=None, partial=False):
    """Reads trajectories of one run or of many.

    Args:
      path: a table (see `trajectory_tables.read`), an event file, or a folder: of tables, each a run unless it names its runs; of
        event files, at any depth; a run or a study of ours.
      columns: "run", "step", "metric", "value" -> column of a table, where they have other names.
      metrics: names to read, all by default.
      partial: where an event file is damaged, keep what stands before the damage.
    Raises:
      ConfigError: names file and place of what cannot be read, or a metric that no run logged.
    """
    path, metrics = Path(path), (metrics,) if isinstance(metrics, str) else metrics
    if path.is_file() and "tfevents" not in path.name:
        found = [trajectory_tables.read(path, columns, metrics)]
    elif not path.exists():
        raise ConfigError(f"{path}: no such file or folder")
    elif path.is_dir() and (runs := _own_runs(path)):
        found = [_own(folder) for folder in runs]
    else:
        events = event_files.find(path)
        files = sorted(file for file in path.iterdir() if file.name.lower().removesuffix(".gz").endswith(KINDS)) if path.is_dir() else []
        if bool(events) == bool(files):
            what = "event files and tables, name one of them" if events else f"no event file, no table ({', '.join(KINDS)}) and no run"
            raise ConfigError(f"{path}: holds {what}")
        found = [trajectory_tables.read(file, columns, metrics) for file in files]
        for run, members in events.items():
            points, config, notes = event_files.read(members, partial)
            found.append(({run: points}, {run: config}, [f"run {run!r}: {note}" for note in notes]))
    return _merge(path, found, metrics)


def to_rows(trajectories, metric=None, at="last", smooth=None):
    """One row per run, for a law fit: the metric at one place of its trajectory, beside what else is known there.

    Args:
      metric: its name; may be left out where there is one only.
      at: "last" (as last logged), "min" (its least finite value, the first of equals), a step, or a list of steps, each giving a row.
      smooth: the metric is replaced by its mean over the last `smooth` logged points, m_i = (v_{i - smooth + 1} + ... + v_i) / smooth.
    Returns:
      pandas frame with the columns run, step, the metric, every other metric as last logged at or before that step, the run's config
      (as config.NAME where a metric has that name), and note: empty, or what is strange about the row. No run is left out: one
      that never logged the metric, or not at that step, has nan there; one that diverged has what it logged.
    Raises:
      ConfigError: no run has the metric, or none at that step.
    """
    import pandas as pd

    metric = _metric(trajectories, metric)
    places = _places(at)
    if smooth is not None and (isinstance(smooth, bool) or not isinstance(smooth, int) or smooth < 1):
        raise ConfigError(f"smooth = {smooth!r}: expected a number of logged points, at least 1, or None")
    rows = []
    for place in places:
        chosen = {run: _choose(series, metric, place, smooth) for run, series in trajectories.series.items()}
        if not isinstance(place, str) and all(math.isnan(step) for step, _, _ in chosen.values()):
            near = sorted(
                {s for series in trajectories.series.values() for s in series.get(metric, {}).keys()}, key=lambda s: abs(s - place)
            )
            raise ConfigError(f"at = {place}: no run logged {metric} at this step; the nearest are {', '.join(map(str, sorted(near[:4])))}")
        for run, (step, value, note) in chosen.items():
            series = trajectories.series[run]
            row = {"run": run, "step": step, metric: value}
            row |= {name: _until(series[name], step) if name in series else math.nan for name in trajectories.metrics if name != metric}
            config = trajectories.config.get(run, {})
            rows.append(
                row | {f"config.{name}" if name in (*row, "note") else name: value for name, value in config.items()} | {"note": note}
            )
    frame = pd.DataFrame(rows)
    return frame[[*(name for name in frame if name != "note"), "note"]]


def _metric(trajectories, metric):
    names = trajectories.metrics
    if metric is None and len(names) == 1:
        return names[0]
    if metric not in names:
        raise ConfigError(f"metric = {metric!r}: no run logged it{suggest(metric, names)}; there are {', '.join(names) or 'none'}")
    return metric


def _places(at):
    places = list(at) if isinstance(at, (list, tuple, range, np.ndarray)) else [at]
    if not places:
        raise ConfigError("at = []: expected 'last', 'min', a step or a list of steps")
    for place in places:
        if place not in ("last", "min") and (isinstance(place, (str, bool)) or not isinstance(place, (int, float, np.number))):
            raise ConfigError(f"at = {place!r}: expected 'last', 'min', a step or a list of steps")
    return places


def _choose(series, metric, place, smooth):
    """(step, value, note) of one run."""
    if metric not in series:
        return math.nan, math.nan, f"{metric} was never logged"
    steps, values = series[metric].index.to_numpy(), series[metric].to_numpy()
    notes = []
    if not (finite := np.isfinite(values)).all():
        notes.append(f"{metric} is not finite at {(~finite).sum()} of {len(steps)} steps, first at {steps[~finite][0]}")
    end, pause = max(one.index[-1] for one in series.values()), np.diff(steps).max(initial=0)
    if place == "last" and end - steps[-1] > pause:
        notes.append(f"{metric} was last logged at step {steps[-1]}, the run goes on to {end}")
    if smooth is not None:
        if len(values) < smooth:
            return math.nan, math.nan, "; ".join([*notes, f"{metric} was logged at {len(values)} steps, too few for a mean over {smooth}"])
        with np.errstate(invalid="ignore"):  # inf - inf is nan, as it should
            values = np.lib.stride_tricks.sliding_window_view(values, smooth).mean(1)
        steps, finite = steps[smooth - 1 :], np.isfinite(values)
    if place == "last":
        index = len(steps) - 1
    elif place == "min":
        index = int(np.where(finite, values, np.inf).argmin())
    elif (index := int(np.searchsorted(steps, place))) == len(steps) or steps[index] != place:
        return math.nan, math.nan, "; ".join([*notes, f"{metric} was not logged at step {place}"])
    return steps[index].item(), float(values[index]), "; ".join(notes)


def _until(series, step):
    """The value last logged at or before `step`."""
    index = int(np.searchsorted(series.index.to_numpy(), step, side="right")) if not math.isnan(step) else 0
    return float(series.iloc[index - 1]) if index else math.nan


def _merge(path, found, metrics):
    """The `Trajectories` of parts (points, config, notes), points being run -> metric -> (steps, values) as they were logged."""
    points: dict = {}
    config: dict = {}
    notes: list = []
    for some, settings, said in found:
        notes += said
        for run, series in some.items():
            config.setdefault(run, {}).update(settings.get(run, {}))
            for metric, (steps, values) in series.items():
                if metrics is None or metric in metrics:
                    before = points.setdefault(run, {}).setdefault(metric, [])
                    before.append((np.asarray(steps, np.float64), np.asarray(values, np.float64)))
            points.setdefault(run, {})
    known = {metric for some, _, _ in found for series in some.values() for metric in series}
    for metric in metrics or ():
        if metric not in known:
            raise ConfigError(f"{path}: no run logged {metric!r}{suggest(metric, known)}; there are {', '.join(sorted(known)) or 'none'}")
    series = {}
    for run, logged in points.items():
        series[run], said = _in_order(
            run, {metric: [np.concatenate(part) for part in zip(*parts, strict=True)] for metric, parts in logged.items()}
        )
        notes += said
    return Trajectories(series, config, tuple(notes))


def _in_order(run, logged):
    """({metric: Series by ascending step, the last value of each}, [note]) of one run."""
    import pandas as pd

    out, again, back, strange = {}, [], [], []
    for metric, (steps, values) in logged.items():
        if not len(steps):
            continue
        order = np.argsort(steps, kind="stable")
        in_order = steps[order]
        last = np.append(in_order[1:] != in_order[:-1], True)
        kept = order[last]
        whole = (steps == np.rint(steps)).all()
        index = pd.Index(steps[kept].astype(np.int64) if whole else steps[kept], name="step")
        out[metric] = pd.Series(values[kept], index=index, name=metric)
        if not last.all():
            again.append((metric, int((~last).sum()), in_order[~last][0]))
        if (falls := np.flatnonzero(np.diff(steps) < 0)).size:
            rest = f"; those above {steps[-1]:.15g} are of before and were not logged again" if in_order[-1] > steps[-1] else ""
            back.append(f"{steps[falls[0]]:.15g} to {steps[falls[0] + 1]:.15g} ({metric}), as after a restart: put in order{rest}")
        if not (finite := np.isfinite(values[kept])).all():
            strange.append((metric, int((~finite).sum()), len(kept), index[~finite][0]))
    notes = []
    if again:
        count = sum(n for _, n, _ in again)
        notes.append(f"values logged again at a step that had one: {count} (first {again[0][0]} at {again[0][2]:.15g}); the last is kept")
    if back:
        notes.append(f"steps go back, first from {back[0]}")
    if strange:
        metric, count, of, first = strange[0]
        others = f", and so are {len(strange) - 1} more metrics" if len(strange) > 1 else ""
        notes.append(f"{metric} is not finite at {count} of {of} steps, first at {first}{others}")
    return out, [f"run {run!r}: {note}" for note in notes]


def _own_runs(path):
    """The run folders of a run, or of a study, of ours."""
    folders = [path] if (path / "trajectory").is_dir() else sorted((path / "runs").iterdir()) if (path / "runs").is_dir() else []
    return [folder for folder in folders if (folder / "trajectory").is_dir()]


def _own(folder):
    """(points, config, notes) of a run folder of ours; its format is that of scaling_jax.train.trajectory, which stands above laws."""
    run, points, notes = folder.resolve().name, {}, []
    manifest = folder / "trajectory" / "manifest.json"
    sealed = {s["name"]: s["sha256"] for s in json.loads(manifest.read_text(encoding="utf-8"))["segments"]} if manifest.is_file() else {}
    for name in sorted(sealed.keys() | {path.name for path in (folder / "trajectory").glob("*.jsonl")}):
        path = folder / "trajectory" / name
        content = path.read_bytes() if path.is_file() else None
        if name in sealed and (content is None or hashlib.sha256(content).hexdigest() != sealed[name]):
            raise ConfigError(f"{path}: this sealed segment is missing or was changed; restore it, or train the run again")
        *lines, tail = content.split(b"\n")
        if tail:
            notes.append(f"run {run!r}: the last line of {name} was not written to the end, as when a job is killed; it is left out")
        for number, line in enumerate(lines, 1):
            try:
                values = json.loads(line)
                step = values.pop("step")
            except (ValueError, AttributeError, KeyError) as error:
                raise ConfigError(
                    f"{path}, line {number}: {line[:40]!r} is no line of a trajectory; restore it, or train the run again"
                ) from error
            for metric, value in values.items():
                steps, logged = points.setdefault(metric, ([], []))
                steps.append(step)
                logged.append(value)
    config = folder / "config.json"
    settings = _flat(json.loads(config.read_text(encoding="utf-8"))["config"]) if config.is_file() else {}
    return {run: points}, {run: settings}, notes


def _flat(group, prefix=""):
    """{"model.width": 64} of {"model": {"width": 64}}; a list becomes its text."""
    out = {}
    for name, value in group.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = json.dumps(value) if isinstance(value, list) else value
    return out
