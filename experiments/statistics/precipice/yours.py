"""A file of scores of your own, reported as the paper recommends: aggregates, profiles and probabilities of improvement."""

import csv
import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaling_jax.laws import bootstrap, reliability
from scaling_jax.records import ConfigError, field

COLUMNS = ("agent", "task", "run", "score")
TAUS = 41  # thresholds of a profile: quantiles of all scores in the file
SHOWN = (0.5, 1.0)  # thresholds at which the profile is also an estimate in words


@dataclass(frozen=True)
class File:
    """A file of scores: fingerprint of its bytes (the path is no part of it), and what its intervals are."""

    path: str = field("", recorded=True)
    fingerprint: str = field("")
    replicates: int = field(bootstrap.REPLICATES, at_least=2)
    few_replicates: int = field(2000, at_least=2, doc="for profiles and probabilities of improvement")
    method: str = field("percentile", choices=bootstrap.METHODS)


def file(path, **options):
    """The `File` at `path`, read once to find its mistakes before anything runs."""
    read(path)
    return File(str(path), hashlib.sha256(_bytes(path)).hexdigest()[:16], **options)


def read(path):
    """The scores of a file: {agent: Scores}, every agent on the same tasks in the same order.

    CSV with the columns agent, task, run, score, a row per run; or JSON, {agent: [[...], ...]} with a list per run, an entry per
    task, or {agent: {task: [score of each run]}}. Scores should be normalised: (score - random) / (reference - random).

    Raises:
      ConfigError: no such file, another form, a score that is no finite number, a run given twice, agents on different tasks.
    """
    try:
        text = _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"scores = {str(path)!r}: no text ({error}); give a CSV or JSON file") from error
    named = _json(path, text) if Path(path).suffix.lower() == ".json" else _csv(path, text)
    if not named:
        raise ConfigError(f"scores = {str(path)!r}: no agent in it")
    tasks = {agent: set(by_task) for agent, by_task in named.items()}
    every = sorted(set().union(*tasks.values()))
    for agent, mine in tasks.items():
        if missing := [task for task in every if task not in mine]:
            raise ConfigError(
                f"scores = {str(path)!r}: agent {agent!r} has no score on task {missing[0]!r} ({len(missing)} of {len(every)} tasks missing); "
                f"aggregates compare agents on the same tasks: add the runs, or take the tasks out for all"
            )
    out = {}
    for agent, by_task in named.items():
        try:
            out[agent] = reliability.from_tasks([by_task[task] for task in every])
        except ConfigError as error:
            raise ConfigError(
                f"scores = {str(path)!r}: agent {agent!r}, tasks numbered in the order {', '.join(every[:3])}, ...: {error}"
            ) from error
    return out


def report(settings, seed):
    """Rows of kind "yours" and "your profile", and the same as estimates with stratified bootstrap intervals."""
    agents, rows, estimates = read(settings.path), [], []

    def add(text, found, count, unit="score"):
        value, low, high = (float(getattr(found, name)) for name in ("value", "low", "high"))
        estimates.append({"text": text, "unit": unit, "value": value, "ci95": [low, high], "n": count})
        return {"value": value, "low": low, "high": high, "width": high - low}

    for agent, x in agents.items():
        found = bootstrap.interval(reliability.aggregates, x, count=settings.replicates, method=settings.method, seed=seed)
        for name, one in zip(reliability.AGGREGATES, _each(found), strict=True):
            numbers = add(f"{name.replace('_', ' ')} of {agent}", one, int(x.runs.sum()))
            rows.append({"kind": "yours", "agent": agent, "aggregate": name, **numbers})
    taus = _taus(agents.values())
    for agent, x in agents.items():
        found = bootstrap.interval(lambda x: reliability.profile(x, taus), x, count=settings.few_replicates, seed=seed)
        for tau, one in zip(taus, _each(found), strict=True):
            rows.append(
                {
                    "kind": "your profile",
                    "agent": agent,
                    "tau": tau,
                    "above": float(one.value),
                    "low": float(one.low),
                    "high": float(one.high),
                }
            )
            if tau in SHOWN:
                add(f"share of {agent}'s runs that score above {tau:g}", one, int(x.runs.sum()), "share")
    for a, b in itertools.permutations(agents, 2):
        x, y = agents[a], agents[b]
        found = bootstrap.interval(reliability.improvement, x, y, count=settings.few_replicates, method=settings.method, seed=seed)
        numbers = add(f"probability that {a} improves on {b}", found, int(x.runs.sum() + y.runs.sum()), "probability")
        rows.append({"kind": "your improvement", "agent": a, "against": b, **numbers})
    return {"rows": rows, "estimates": estimates}


def _taus(tables):
    every = np.concatenate([x.flat for x in tables])
    return sorted({*np.quantile(every, np.linspace(0, 1, TAUS)).tolist(), *SHOWN})


def _each(found):
    """A Bootstrapped of arrays [k] as k of scalars."""
    return [
        bootstrap.Bootstrapped(*four, found.count, found.method) for four in zip(found.value, found.low, found.high, found.se, strict=True)
    ]


def _bytes(path):
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"scores = {str(path)!r}: cannot be read ({error}); give the path of a CSV or JSON file") from error


def _csv(path, text):
    reader = csv.DictReader(text.splitlines())
    if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
        raise ConfigError(f"scores = {str(path)!r}: no column {missing[0]!r}; expected {', '.join(COLUMNS)}, a row per run")
    out = {}
    for row in reader:
        where = f"scores = {str(path)!r}, line {reader.line_num}"
        runs = out.setdefault(row["agent"], {}).setdefault(row["task"], {})
        if row["run"] in runs:
            raise ConfigError(
                f"{where}: run {row['run']!r} of agent {row['agent']!r} on task {row['task']!r} is there already; number runs apart"
            )
        try:
            runs[row["run"]] = float(row["score"])
        except (TypeError, ValueError):
            raise ConfigError(f"{where}: score = {row['score']!r}, expected a number") from None
    return {agent: {task: list(runs.values()) for task, runs in tasks.items()} for agent, tasks in out.items()}


def _json(path, text):
    try:
        named = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"scores = {str(path)!r}: not JSON ({error})") from error
    form = "expected {agent: [[score on each task] for each run]} or {agent: {task: [score of each run]}}"
    if not isinstance(named, dict):
        raise ConfigError(f"scores = {str(path)!r}: {form}")
    out = {}
    for agent, table in named.items():
        if isinstance(table, dict):
            out[agent] = table
            continue
        if not isinstance(table, list) or not table or not all(isinstance(run, list) for run in table):
            raise ConfigError(f"scores = {str(path)!r}: agent {agent!r}: {form}")
        if len({len(run) for run in table}) != 1:
            raise ConfigError(
                f"scores = {str(path)!r}: agent {agent!r}: runs have {sorted({len(r) for r in table})} scores; {form}, or name the tasks"
            )
        width = len(str(len(table[0])))
        out[agent] = {f"task {j:0{width}}": [run[j] for run in table] for j in range(len(table[0]))}
    return out
