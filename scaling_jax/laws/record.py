"""A fit as an entry of fit.json, and back: what `scaling-jax fit` writes and `scaling-jax predict` reads."""

import importlib
import math
import os
import sys
from collections.abc import Mapping

import numpy as np

from scaling_jax import records
from scaling_jax.laws import forms
from scaling_jax.laws.fitting import KINDS, Fit
from scaling_jax.laws.form import Form, as_form
from scaling_jax.laws.points import Points

SCHEMA = 2
SAMPLES = 1000  # most draws of the parameters that fit.json keeps
KEPT = 20_000  # most points that fit.json keeps


def laws():
    """Names of the laws in forms.py."""
    return [key for key, value in vars(forms).items() if isinstance(value, Form)]


def law_named(name):
    """The law of this name: one of forms.py, or the user's own by import path, `package.module:name`.

    Raises:
      ConfigError: there is none.
    """
    module, colon, attribute = str(name).partition(":")
    if not colon:
        if name not in laws():
            raise records.ConfigError(
                f"--law={name}: not one of {', '.join(laws())}{records.suggest(name, laws())}; a law of your own is given as package.module:name"
            )
        return getattr(forms, name)
    here = os.getcwd()
    sys.path.insert(0, here)  # an installed command does not look where it is started
    try:
        return as_form(getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError, ValueError) as error:
        raise records.ConfigError(f"--law={name}: {error}") from error
    finally:
        sys.path.remove(here)


def to_json(found, group="", ci95=None, samples=None, seed=None, law=None, **more):
    """A fit as an entry of fit.json: plain types.

    Args:
      group: the rows it was fitted to, in words.
      ci95: parameter -> (low, high), None where unknown; an end that the data do not bound is None.
      samples: parameter -> draws, at most `SAMPLES`, where the intervals came from any; seed: that of the draws.
      law: the name to find the law by, where it is not one of forms.py. more: further entries, of plain types.
    """
    ci95 = {name: None if ends is None else [_end(e) for e in ends] for name, ends in (ci95 or {}).items()}
    samples = {name: [float(v) for v in draws] for name, draws in (samples or {}).items()}
    for kind, named in (("ci95", ci95), ("samples", samples)):
        if strange := set(named) - set(found.params):
            raise ValueError(f"{kind}: {found.form.name} has no parameter {sorted(strange)[0]!r}; it has {', '.join(found.params)}")
    if most := [name for name, draws in samples.items() if len(draws) > SAMPLES]:
        raise ValueError(f"samples: {len(samples[most[0]])} draws of {most[0]}, at most {SAMPLES}; thin them")
    points = found.points if found.points is not None and found.n <= KEPT else None
    return {
        "schema": SCHEMA,
        "law": law or found.form.name,
        "equation": found.form.equation,
        "group": group,
        "loss_kind": found.loss_kind,
        "loss": found.loss,
        "delta": _end(found.delta),
        "seed": seed,
        "n": found.n,
        "distinct": found.distinct,
        "objective": found.objective,
        "params": {name: float(value) for name, value in found.params.items()},
        "bounds": {name: [_end(end) for end in ends] for name, ends in found.form.bounds.items()},
        "fixed": {name: float(value) for name, value in found.fixed.items()},
        "ci95": ci95,
        "r2": _end(found.r2),
        "aic": _end(found.aic),
        "x_range": list(found.x_range),
        "converged": found.converged,
        "identified": found.identified,
        "samples": samples,
        "warnings": list(found.warnings),
        **({"points": _points(points, found.form.y)} if points is not None else {}),
        **more,
    }


def from_json(entry):
    """The Fit that `to_json` wrote, with its points where they were kept.

    Raises:
      ConfigError: an entry without a law, parameters, or points to rest an interval on.
    """
    missing = [name for name in ("law", "params", "n") if name not in entry]
    if missing or not isinstance(entry.get("params"), Mapping):
        raise records.ConfigError(
            f"fit: no {missing[0] if missing else 'params'} in it; expected an entry that `scaling-jax fit --json` wrote"
        )
    if entry.get("schema", 1) > SCHEMA:
        raise records.ConfigError(f"fit: schema {entry['schema']}, this version reads up to {SCHEMA}; update scaling_jax")
    form = law_named(entry["law"])
    bounds = {name: [_end(end) for end in ends] for name, ends in form.bounds.items()}
    if entry.get("equation", form.equation) != form.equation or entry.get("bounds", bounds) != bounds:
        raise records.ConfigError(
            f"fit: it is of another law than {entry['law']} is now (equation {entry.get('equation')}); fit again, or name yours as package.module:name"
        )
    if set(entry["params"]) != set(form.params):
        raise records.ConfigError(f"fit: params are {', '.join(entry['params'])}; {form.name} has {', '.join(form.params)}")
    kept = entry.get("points")
    points = None
    if kept:
        columns = {name: np.array(kept["inputs"][name], np.float64) for name in form.inputs}
        target = np.array(kept["y"], np.float64)
        clusters = np.array(kept["clusters"]) if "clusters" in kept else None
        points = Points(columns, target, np.array(kept["weights"], np.float64), np.array(kept["rows"], int), clusters)
    number = lambda name, default: default if entry.get(name) is None else entry[name]
    return Fit(
        form=form,
        params={name: float(entry["params"][name]) for name in form.params},
        objective=number("objective", math.nan),
        n=entry["n"],
        distinct=number("distinct", entry["n"]),
        r2=number("r2", math.nan),
        x_range=tuple(entry["x_range"]),
        warnings=tuple(entry.get("warnings", ())),
        aic=number("aic", math.nan),
        loss=entry.get("loss") or next((name for name, kind in KINDS.items() if kind == entry.get("loss_kind")), "lsq"),
        delta=number("delta", math.inf),
        converged=entry.get("converged", True),
        identified=entry.get("identified", True),
        fixed=entry.get("fixed", {}),
        points=points,
    )


def _points(points, y):
    columns = {name: values.tolist() for name, values in points.columns.items()}
    shared = {} if points.clusters is None else {"clusters": points.clusters.tolist()}
    return shared | {
        "inputs": columns,
        "y": points.target.tolist(),
        "y_name": y,
        "weights": points.weights.tolist(),
        "rows": points.rows.tolist(),
    }


def _end(value):
    """A float, or None for what JSON has no number for."""
    return float(value) if value is not None and math.isfinite(value) else None
