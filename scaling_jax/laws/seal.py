"""Sealed predictions: a fit and its forecast are frozen before the big run, and scored when the run is in.

    seal(found, at, path, register=)   ->   the run   ->   score(path, observed, register)   ->   register_summary(register)

A seal is a JSON file with a sha256 over everything in it. It shows that nothing was edited by accident or in passing; who wants to show
it to others publishes the sha256 (in a paper, a commit, an e-mail) before the run, because whoever can write a file can seal it anew.
"""

import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import scaling_jax
from scaling_jax.laws import chain, design, intervals, record
from scaling_jax.laws.form import NotTestable
from scaling_jax.laws.register import SCHEMA, entries_of, lines, register_summary
from scaling_jax.laws.scoring import Score, scored
from scaling_jax.records import ConfigError

__all__ = ["Score", "Seal", "lines", "open_seal", "register_summary", "score", "seal"]

KINDS = ("run", "law")
POINTS = ("inputs", "y", "weights", "rows")  # what the digest of the points is of


@dataclass(frozen=True)
class Seal:
    """A sealed prediction: `content` as it stands in the file, checked."""

    path: Path
    content: Mapping

    @property
    def sha256(self):
        return self.content["sha256"]

    @property
    def predicted(self):
        return self.content["predicted"]

    @property
    def band(self):
        """The band that a score is held against, (low, high)."""
        return tuple(self.content["band_" + self.content["kind"]])

    def fit(self):
        """The Fit that was sealed; a law of the user's own needs the name that `seal` was given."""
        return record.from_json(self.content["fit"])


def seal(found, at, path, kind="run", note="", level=0.95, law=None, register=None):
    """Freezes a fit and its forecast at one place in a new file, which is never overwritten.

    Args:
      found: a Fit with its points. at: the law's inputs there, name -> number.
      kind: "run", one new run (or the mean of a few) is held against the band of runs; "law", an average that has no noise left against
        the band of the law. Both bands are in the file.
      note: words for people. law: where to find a law of the user's own, "package.module:name". register: file of `score`, in which the
        seal is listed as waiting; without it a prediction that went wrong can be forgotten.
    Returns:
      Seal.
    Raises:
      ConfigError: an unknown kind or input, a file that exists. NotTestable: no interval, or a band without an end, which cannot fail.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind = {kind!r}: expected one of {', '.join(KINDS)}")
    if not 0 < level < 1:
        raise ConfigError(f"level = {level!r}: expected a share between 0 and 1, such as 0.95")
    path = Path(path)
    if not path.parent.is_dir():
        raise ConfigError(f"path = {str(path)!r}: its directory does not exist; make it first")
    content = _content(found, _point(found.form, at), kind, str(note), level, law)
    if register is None:
        _write_new(path, content)
        return Seal(path, content)
    with chain.opened(register, write=True) as book:
        entries_of(book)
        _write_new(path, content)
        book.append({"schema": SCHEMA, "entry": "sealed", "time": _now(), **_brief(content)})
    return Seal(path, content)


def open_seal(path):
    """A seal, every byte checked.

    Raises:
      ConfigError: no seal there, or an edited one; says which check failed: JSON, schema, fields, points, sha256 or bytes.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"seal {path}: cannot be read ({error.strerror}); give a file that `seal` wrote") from error
    content = chain.parsed(data, f"seal {path}")
    if not isinstance(content, dict) or content.get("what") != "sealed prediction":
        raise ConfigError(f"seal {path}: not a sealed prediction; give a file that `seal` wrote")
    if content.get("schema") != SCHEMA:
        raise ConfigError(f"seal {path}: schema = {content.get('schema')!r}, this version reads {SCHEMA}; edited, or of a later version")
    if missing := [name for name in ("fit", "points_sha256", "sha256") if name not in content]:
        raise ConfigError(f"seal {path}: edited, the field {missing[0]!r} is gone")
    points = content["fit"].get("points") if isinstance(content["fit"], dict) else None
    if isinstance(points, dict) and content["points_sha256"] != chain.sha256({name: points.get(name) for name in POINTS}):
        raise ConfigError(f"seal {path}: edited, the fitted points are not those of points_sha256")
    if content["sha256"] != _digest(content):
        raise ConfigError(f"seal {path}: edited, its sha256 is not that of its content")
    if _text(content).encode() != data:
        raise ConfigError(f"seal {path}: edited, its bytes are not as they were written")
    return Seal(path, content)


def score(path, observed, register=None, observed_at=None):
    """Holds a sealed prediction against what was observed, and appends the score to a register.

    Args:
      observed: of one run, or of several that differ in their seed [k]: their mean is held against the band for k runs,
        half widths sqrt(h_law^2 + h_noise^2 / k), of kind "law" against the law's.
      register: JSON lines (chain.py); of a seal's scores the first counts.
      observed_at: when the result was known, a datetime or ISO text with its zone; before the seal it is marked as no prediction.
    Returns:
      Score.
    Raises:
      ConfigError: an edited seal or register, or a value that no run gives.
    """
    sealed = open_seal(path)
    runs = _observed(sealed, observed)
    known = None if observed_at is None else _time(observed_at)
    prediction = None if known is None else known >= datetime.fromisoformat(sealed.content["sealed_at"])
    found = {**scored(sealed.content, runs), "prediction": prediction}
    if register is None:
        return Score(**found)
    with chain.opened(register, write=True) as book:
        mine = [entry for entry in entries_of(book) if entry["seal"] == sealed.sha256]
        found |= {"first": all(entry["entry"] != "score" for entry in mine), "late": not mine}
        when = None if known is None else known.isoformat()
        brief = {name: value for name, value in _brief(sealed.content).items() if name != "band"}
        book.append({"schema": SCHEMA, "entry": "score", "time": _now(), "observed_at": when, **brief, **_plain(found)})
    return Score(**found)


def _content(found, at, kind, note, level, law):
    """Everything that is sealed."""
    if found.points is None:
        raise ConfigError("found: this fit has no points to rest an interval on; fit again, or keep them in fit.json")
    columns = {name: np.array([value]) for name, value in at.items()}
    of_law = intervals.band(found, columns, level, "law")
    of_run = intervals.band(found, columns, level, "run") if kind == "run" or found.form.link is None else None
    for name, band in (("law", of_law), ("run", of_run)):
        if band is not None and not np.isfinite([band.value, band.low, band.high]).all():
            raise NotTestable(
                f"the band of the {name} at {at} is {float(band.low[0])} to {float(band.high[0])}: without an end it cannot fail"
            )
    ends = lambda band: None if band is None else [float(band.low[0]), float(band.high[0])]
    points = found.points
    inputs = {name: values.tolist() for name, values in points.columns.items()}
    kept = dict(zip(POINTS, (inputs, *(a.tolist() for a in (points.target, points.weights, points.rows))), strict=True))
    content = {
        "schema": SCHEMA,
        "what": "sealed prediction",
        "sealed_at": _now(),
        "kind": kind,
        "note": note,
        "level": float(level),
        "at": at,
        "outside": design.outside(found, columns)[0],
        "predicted": float(of_law.value[0]),
        "band_run": ends(of_run),
        "band_law": ends(of_law),
        "predictive": _predictive(found, of_law),
        "scale": "identity" if found.loss == "lsq" or found.form.link is not None else "ln",
        "fit": record.to_json(found, law=law),
        "points_sha256": chain.sha256(kept),
        "versions": {
            "scaling_jax": scaling_jax.__version__,
            "numpy": np.__version__,
            "scipy": _scipy_version(),
            "python": platform.python_version(),
        },
    }
    return {**content, "sha256": _digest(content)}


def _predictive(found, of_law):
    """The t distribution of a new run on the scale of the residuals: se of the law, noise of one run, degrees of freedom; None: no such."""
    if found.loss == "huber" or found.form.link is not None:
        return None
    *_, noise, dof = intervals.new_run(found)
    value, se = float(of_law.value[0]), float(of_law.se[0])
    se = se if found.loss == "lsq" else se / value
    if not (noise > 0 or se > 0):
        return None
    if found.points.clusters is not None:  # two estimates of few degrees of freedom each: Satterthwaite's of their sum
        dof = (se**2 + noise**2) ** 2 / (se**4 / float(of_law.dof[0]) + noise**4 / dof)
    return {"se_law": se, "noise": float(noise), "dof": float(dof)}


def _point(form, at):
    """The inputs of one run, name -> float, checked."""
    if not isinstance(at, Mapping) or set(at) != set(form.inputs):
        given = ", ".join(map(str, at)) if isinstance(at, Mapping) else repr(at)
        raise ConfigError(f"at: {given or 'nothing'} given, expected {', '.join(form.inputs)}, the inputs of {form.name}")
    out = {}
    for name in form.inputs:
        try:
            out[name] = float(np.asarray(at[name], np.float64).reshape(()))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"at: {name} = {at[name]!r}: expected one number; seal several predictions in a file each") from error
        if not math.isfinite(out[name]) or (form.positive and out[name] <= 0):
            raise ConfigError(f"at: {name} = {out[name]}: expected a finite number{' above zero' if form.positive else ''}")
    return out


def _observed(sealed, observed):
    try:
        runs = np.atleast_1d(np.asarray(observed, np.float64))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"observed = {observed!r}: expected a number, or one per run") from error
    above = sealed.content["scale"] == "ln"
    wrong = ~np.isfinite(runs) | (runs <= 0) if above else ~np.isfinite(runs)
    if runs.ndim != 1 or not runs.size or wrong.any():
        raise ConfigError(f"observed = {observed!r}: expected finite numbers{' above zero' if above else ''}, one per run")
    return runs.tolist()


def _brief(content):
    """What the register says about a seal."""
    names = ("sealed_at", "kind", "level", "at", "predicted", "note")
    band = content["band_" + content["kind"]]
    return {"seal": content["sha256"], "law": content["fit"]["law"], "band": band, **{name: content[name] for name in names}}


def _plain(found):
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _digest(content):
    return chain.sha256({name: value for name, value in content.items() if name != "sha256"})


def _text(content):
    """The file of a seal: one field a line, in one spelling."""
    return "{\n" + ",\n".join(f"{chain.canonical(name)}: {chain.canonical(content[name])}" for name in sorted(content)) + "\n}\n"


def _write_new(path, content):
    """Writes the file where there is none; read-only, and gone again where the disk is full."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    except FileExistsError:
        raise ConfigError(f"{path}: exists already, and a seal is never overwritten; give another name") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(_text(content))
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(path)
        raise


def _now():
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _time(value):
    """The time of an observation in UTC, from a datetime or ISO text."""
    try:
        when = datetime.fromisoformat(value) if isinstance(value, str) else value
        zone = when.tzinfo
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"observed_at = {value!r}: expected a time such as 2026-03-01T12:00+00:00") from error
    if zone is None:
        raise ConfigError(f"observed_at = {value!r}: add its zone, such as {when.isoformat()}+00:00")
    if when > datetime.now(UTC):
        raise ConfigError(f"observed_at = {value!r}: lies in the future")
    return when.astimezone(UTC)


def _scipy_version():
    import scipy

    return scipy.__version__
