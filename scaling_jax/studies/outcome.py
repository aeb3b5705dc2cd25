"""What a study leaves behind: rows.csv, fit.json, verdict.json, figures/*.svg, report.html; and what it prints at the end."""

import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from scaling_jax.laws import fitting, intervals, record
from scaling_jax.laws.form import NotTestable
from scaling_jax.parallel import cost
from scaling_jax.studies import claims as claims_
from scaling_jax.studies import figures, report
from scaling_jax.studies import study as studies
from scaling_jax.studies.charts import between, number
from scaling_jax.studies.report_verdicts import LARGER
from scaling_jax.studies.rows import Data
from scaling_jax.train import trajectory

SCHEMA = 1


def write(study, state, done, workdir, title, scale, corpus, clock, ablation=None):
    """Judges the claims on the rows of `done` and writes every artifact below `workdir`; returns (verdicts, estimates)."""
    workdir = Path(workdir)
    frame, cells = studies.rows(study, state, done)
    data = Data(frame, cells) if len(frame) else None
    verdicts = judge(study, data)
    found = estimates(study, data) + reported(state, done)
    laws = fit_laws(study, data)
    frame.drop(columns=["runs", "team"], errors="ignore").to_csv(workdir / "rows.csv", index=False)
    provenance = provenance_of(corpus, ablation)
    trajectory.write_json(workdir / "fit.json", {"schema": SCHEMA, "study": title, "scale": scale, "fits": laws})
    found_out = {"schema": SCHEMA, "study": title, "paper": study.paper, "scale": scale, "provenance": provenance | clock}
    found_out |= {"claims": [claims_.to_json(v) for v in verdicts], "estimates": found}
    trajectory.write_json(workdir / "verdict.json", found_out)
    charts = _charts(study, data, workdir)
    report.write(
        workdir / "report.html",
        study.title,
        study.paper,
        study.question,
        scale,
        verdicts,
        study.claims,
        charts,
        rows=frame.drop(columns=["runs", "team"], errors="ignore"),
        cost=clock | _spent(done),
        provenance=provenance,
        fits=laws,
        estimates=found,
        notes=_notes(study, frame, laws, done, ablation),
    )
    return verdicts, found


def judge(study, data):
    """The verdicts on the study's claims; before any row is there none of them is testable."""
    if data is not None:
        return claims_.judge(study.claims, data)
    return [
        claims_.Verdict(c.text, c.explain, c.threshold, c.side, "", c.unit, c.paper_value, reason="no test stage has run yet")
        for c in study.claims
    ]


def estimates(study, data):
    """The study's estimates with jackknife intervals, as plain dicts; a missing one says why."""
    out = []
    for one in study.estimates:
        entry = {"text": one.text, "unit": one.unit, "value": None, "ci95": None, "n": 0, "paper_value": one.paper_value, "reason": ""}
        try:
            if data is None:
                raise NotTestable("no test stage has run yet")
            value = float(one.statistic(data))
            if not math.isfinite(value):
                raise NotTestable(f"the statistic is {value}, not a finite number")
            entry["value"] = value
            statistic = lambda dropped, one=one: one.statistic(data.drop(dropped))
            value, without = intervals.deletions(statistic, data.strata)
            counts = intervals.used(statistic, data.strata, value, without)
            found = intervals.from_deletions(value, without, counts=counts)
            entry["n"] = sum(counts.values())
            entry["ci95"] = _ends(found.low, found.high)
        except NotTestable as error:
            entry["reason"] = str(error)
        out.append(entry)
    return out


def reported(state, done):
    """Estimates that simulations of the test stages bring with intervals of their own: metrics["estimates"], dicts of text, value, ci95, n, unit."""
    units = {
        unit.identity: unit
        for group in done.values()
        for unit in group
        if unit.kind == "simulate" and unit.config.seed < studies.TUNING_SEED
    }
    empty = {"unit": "", "ci95": None, "n": 0, "paper_value": None, "reason": ""}
    return [{**empty, **one} for identity in units for one in state.results[identity].get("estimates", ())]


def fit_laws(study, data):
    """The study's laws as entries of fit.json; one that cannot be fitted says why under "warnings"."""
    out = []
    for law in study.laws if data is not None else ():
        rows = data.where(**law.where)
        for group in sorted(set(rows[law.by])) if law.by else [""]:
            part = rows.where(**{law.by: group}) if law.by else rows
            name = f"{law.title}: {group}" if law.by else law.title
            try:
                whole = fitting.fit(law.form, part.by(law.x))
            except NotTestable as error:
                out.append(
                    {
                        "law": law.form.name,
                        "equation": law.form.equation,
                        "group": name,
                        "n": len(part),
                        "params": {},
                        "ci95": {},
                        "r2": None,
                        "warnings": [str(error)],
                    }
                )
                continue
            out.append(record.to_json(whole, name, _law_ends(law, part)))
    return out


def show(progress, study, verdicts, found, workdir, command):
    """Prints the verdict table, the estimates and, as the last line, the command to type next."""
    progress.print("")
    progress.print(report.verdict_table(verdicts, progress.console.width))
    progress.print(report.summary(verdicts))
    for one in found:
        if one["value"] is not None:
            paper = f"   (paper {one['paper_value']:g})" if one["paper_value"] is not None else ""
            progress.print(
                f"{one['text']}: {number(one['value'])} {one['unit']} {between(*(one['ci95'] or (None, None)))}, {one['n']} runs{paper}"
            )
    progress.print(f"report: {Path(workdir) / 'report.html'}")
    progress.print(f"next: {command}")


def next_command(name, scale, workdir, scales, until=None, ablate=None, overrides=None):
    """The command that goes on from one with these arguments: the rest of this scale, or the next scale."""
    said = [*([f"--ablate={ablate}"] if ablate else []), *(f"--config.{field}={value}" for field, value in (overrides or {}).items())]
    call = lambda scale, workdir, *more: shlex.join(
        [_program(), "study", str(name), f"--scale={scale}", f"--workdir={workdir}", *said, *more]
    )
    if until is not None:
        return call(scale, workdir)
    if LARGER.get(scale) not in scales:
        return shlex.join(["open", str(Path(workdir) / "report.html")])
    larger = LARGER[scale]
    return call(larger, Path(workdir).with_name(f"{Path(workdir).name}_{larger}"), "--dry-run")


def _program():
    """How this program is called from here: by name where the shell finds it, else by its path."""
    beside = Path(sys.executable).with_name("scaling-jax")
    if shutil.which("scaling-jax") or not beside.is_file():
        return "scaling-jax"
    return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)


def provenance_of(corpus, ablation=None):
    """What the numbers came from: command, commit, versions, device, data (corpus: None in a study that trains nothing)."""
    import importlib.metadata
    import platform

    import jax

    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy", "scipy")}
    device = jax.devices()[0]
    return {
        "command": " ".join(["scaling-jax", *map(shlex.quote, sys.argv[1:])]),
        "commit": _commit(),
        "python": platform.python_version(),
        **versions,
        "device": f"{device.device_kind} x {jax.device_count()}, {platform.machine()}",
        "corpus": "; ".join([f"{corpus.name}, fingerprint {corpus.fingerprint}", *corpus.notes])
        if corpus
        else "no corpus: this study trains nothing",
        **({"ablation": json.dumps(ablation)} if ablation else {}),
    }


def _law_ends(law, part):
    names = law.form.params
    try:
        found = intervals.jackknife(
            lambda dropped: [fitting.fit(law.form, part.drop(dropped).by(law.x))[name] for name in names], part.strata
        )
    except NotTestable:
        return dict.fromkeys(names)
    return {name: _ends(low, high) for name, low, high in zip(names, found.low, found.high, strict=True)}


def _ends(low, high):
    return [float(low), float(high)] if math.isfinite(low) and math.isfinite(high) else None


def _charts(study, data, workdir):
    """(key, chart, texts of its claims) of every figure; each is drawn as SVG too."""
    folder, out = workdir / "figures", []
    folder.mkdir(exist_ok=True)
    for figure in study.figures if data is not None else ():
        chart = figure(data, lambda run: trajectory.read(workdir / "runs" / run))
        figures.svg(chart, folder / f"{figure.key}.svg")
        out.append((figure.key, chart, figures.claim_texts(figure, study.claims)))
    return out


def _notes(study, frame, laws, done, ablation):
    """What stands before the verdicts: what was taken out, what has not run, what the study itself has to say, and laws that fit badly."""
    notes = [f"A mechanism was taken out here: {json.dumps(ablation)}. Claims that rest on it should not hold."] if ablation else []
    missing = [stage.name for stage in study.stages if stage.name not in done]
    if missing:
        notes.append(f"These stages have not run yet, and claims that need them are not testable: {', '.join(missing)}.")
    notes += study.notes(frame) if study.notes and len(frame) else ()
    return notes + [f"Law of {law['group'] or law['law']}: {warning}." for law in laws for warning in law["warnings"]]


def _spent(done):
    every = {unit.identity: unit for group in done.values() for unit in group}.values()
    costs = [cost.of_run(unit.config) for unit in every if unit.kind == "train"]
    simulated = sum(unit.kind == "simulate" for unit in every)
    out = {"simulations": simulated} if simulated else {}
    if costs or not simulated:
        out |= {"runs": len(costs), "flops": float(np.sum([c.flops for c in costs])), "tokens": int(np.sum([c.tokens for c in costs]))}
    return out


def _commit():
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return "not a checkout"
    git = lambda *args: subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True).stdout.strip()
    return (git("rev-parse", "--short=12", "HEAD") or "no commit") + (" with uncommitted changes" if git("status", "--porcelain") else "")
