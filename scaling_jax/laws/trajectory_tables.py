"""Trajectories in tables: wide, long, and the exports of Weights & Biases."""

import math
from pathlib import Path

import numpy as np

from scaling_jax.laws import tables
from scaling_jax.records import ConfigError

STEP = ("step", "Step", "_step", "global_step", "train/global_step", "trainer/global_step", "iteration", "iter")
RUN = ("run", "run_id", "_run_id", "run_name", "Name", "name")
METRIC = ("metric", "tag", "key")
VALUE = ("value",)
CONFIG = ("config.", "config/")
JOIN = " - "  # between run and metric in the columns of a panel's export
BOUNDS = ("__MIN", "__MAX")  # of the values that one point of a panel stands for


def read(path, columns=None, metrics=None):
    """The trajectories in a table of any format of `tables.read_table`, in the order of its rows.

    - wide: one row per run and step, each metric a column.
    - long: one row per run, step and metric, with the columns metric and value.
    - a panel of Weights & Biases: a step, and the columns "run - metric", "run - metric__MIN", "run - metric__MAX".

    Without a column that names the runs, the table is one run, named by its file. An empty cell was not logged; NaN was. Columns
    config.* are the run's config, and so are other columns of text that are the same in all rows of a run; text that changes is
    left out, with a note. A column with numbers and text is an error, unless `metrics` are named and it is none of them.
    Returns:
      ({run: {metric: (steps, values)}}, {run: {name: value}}, [note]).
    Raises:
      ConfigError: names file, line, column, the text found, and the remedy.
    """
    table = tables.read_table(path)
    columns = columns or {}
    for role in columns:
        if role not in ("run", "step", "metric", "value"):
            raise ConfigError(f"columns: {role!r} is none of run, step, metric, value, which a trajectory has")

    def pick(role, names):
        return tables.find(table, role, columns[role]) if role in columns else next((n for n in names if n in table.columns), None)

    step = pick("step", STEP) or tables.find(table, "step", "step")
    steps = tables.numbers(table, step)
    if _is_panel(table, step):
        return _panel(table, step, steps)
    run, metric, value = pick("run", RUN), pick("metric", METRIC), pick("value", VALUE)
    rows = _rows(tables.labels(table, run) if run else [_stem(Path(path))] * len(steps))
    rest = [name for name in table.columns if name not in (step, run, "")]  # "": the index that pandas writes
    if set(columns) & {"metric", "value"}:
        metric, value = metric or tables.find(table, "metric", "metric"), value or tables.find(table, "value", "value")
    if metric and value:
        points = _long(table, rows, steps, metric, value)
        rest = [name for name in rest if name not in (metric, value)]
    else:
        points, rest = _wide(table, rows, steps, rest, metrics)
    return points, *_config(table, rows, rest)


def _wide(table, rows, steps, names, metrics):
    """({run: {metric: (steps, values)}}, names of the columns that are no metric)."""
    points: dict = {run: {} for run in rows}
    rest = []
    for name in names:
        logged, values, text = (None, None, None) if name.startswith(CONFIG) else _logged(table, name)
        if logged is None or not logged.any():
            rest.append(name)
        elif text is not None:
            if metrics is None or name in metrics:
                raise _mixed(table, text, name)
            rest.append(name)
        else:
            for run, members in rows.items():
                if (there := members[logged[members]]).size:
                    points[run][name] = steps[there], values[there]
    return points, rest


def _mixed(table, row, name):
    cell = table.columns[name][row]
    return table.wrong(row, name, f"{cell!r} is not a number, other cells of the column are; correct it, or name the metrics to read")


def _rows(runs):
    """run -> its rows, in order."""
    codes: dict = {}
    numbers = np.array([codes.setdefault(run, len(codes)) for run in runs])
    order = np.argsort(numbers, kind="stable")
    ends = np.cumsum(np.bincount(numbers))
    return dict(zip(codes, np.split(order, ends[:-1]), strict=True))


def _logged(table, name):
    """(where a number was logged [n], the numbers [n], row of the first cell that is neither number nor empty, or None)."""
    cells, values, text = table.columns[name], [], None
    for row, cell in enumerate(cells):
        try:
            if cell is None or isinstance(cell, bool):
                raise ValueError
            values.append(float(cell))
        except (TypeError, ValueError, OverflowError):
            values.append(None)
            if text is None and not tables.empty(cell):
                text = row
    logged = np.array([value is not None for value in values])
    return logged, np.array([math.nan if value is None else value for value in values]), text


def _long(table, rows, steps, metric, value):
    logged, values, text = _logged(table, value)
    if text is not None:
        raise table.wrong(text, value, f"{table.columns[value][text]!r} is not a number; correct it or delete the row")
    names = tables.labels(table, metric)
    points: dict = {}
    for run, members in rows.items():
        points[run] = {}
        for name, some in _rows([names[i] for i in members]).items():
            there = members[some][logged[members[some]]]
            if there.size:
                points[run][name] = steps[there], values[there]
    return points


def _is_panel(table, step):
    rest = [name for name in table.columns if name not in (step, "")]
    return bool(rest) and (all(JOIN in name for name in rest) or any(JOIN in name and name.endswith(BOUNDS) for name in rest))


def _panel(table, step, steps):
    """A panel's export; what its bounds say about averaging is a note."""
    points: dict = {}
    notes = []
    for name in table.columns:
        run, join, metric = name.rpartition(JOIN)
        if name in (step, "") or metric.endswith(BOUNDS) or metric in STEP:
            continue
        if not join:
            notes.append(f"{table.path}: column {name!r} names no run and is left out")
            continue
        logged, values, text = _logged(table, name)
        if text is not None:
            raise _mixed(table, text, name)
        points.setdefault(run, {})
        if logged.any():
            points[run][metric] = steps[logged], values[logged]
        if all(name + bound in table.columns for bound in BOUNDS):
            low, high = (_logged(table, name + bound)[1] for bound in BOUNDS)
            if wide := int((low < high).sum()):
                notes.append(
                    f"run {run!r}: {wide} of {int(logged.sum())} points of {metric} are means over several values (__MIN < __MAX), "
                    "of grouped runs or of a thinned history; export each run's history for the values themselves"
                )
    return points, {run: {} for run in points}, notes


def _constant(table, rows, name):
    """({run: the one value of its cells that are not empty}, None or the first row that has another)."""
    out = {}
    for run, members in rows.items():
        for row in members:
            cell = table.columns[name][row]
            if not tables.empty(cell) and not _is_nan(cell) and out.setdefault(run, cell) != cell:
                return out, row
    return out, None


def _config(table, rows, names):
    """({run: {name: value}}, [note]) of the columns that are config."""
    config: dict = {run: {} for run in rows}
    notes = []
    for name in names:
        values, other = _constant(table, rows, name)
        if other is None:
            short = name[len(CONFIG[0]) :] if name.startswith(CONFIG) else name
            for run, value in _typed(values).items():
                config[run][short] = value
        elif name.startswith(CONFIG):
            raise table.wrong(other, name, f"{table.columns[name][other]!r} differs from a row above of the same run; a run has one config")
        else:
            notes.append(f"{table.path}: column {name!r} changes within a run and is no metric; it is left out")
    return config, notes


def _typed(values):
    """Text as whole numbers or numbers, where all of it is."""
    for kind in (int, float):
        try:
            return {run: kind(value) if isinstance(value, str) else value for run, value in values.items()}
        except ValueError:
            continue
    return values


def _stem(path):
    name = path.name.removesuffix(".gz")
    return name.rpartition(".")[0] or name


def _is_nan(cell):
    return isinstance(cell, float) and math.isnan(cell)
