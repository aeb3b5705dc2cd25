"""`scaling-jax fit POINTS --law=NAME`: a law fitted to the user's own points, with intervals."""

import json
import re
import shlex
from pathlib import Path

import numpy as np

from scaling_jax import records
from scaling_jax.laws import intervals, isoflop, record, resample, tables, trajectories
from scaling_jax.laws.fitting import DELTA, fit
from scaling_jax.laws.form import NotTestable
from scaling_jax.laws.shell_words import nothing_left, number, pairs, span, table
from scaling_jax.records import ConfigError

ISOFLOP_NOTES = (
    "bias: what an approach is off by on this grid without noise, if the law of approach 3 is true",
    f"95% intervals of approaches 1 and 2: for what they would say on this grid without noise, their bias included; from {isoflop.WORLDS} "
    "worlds of the law of approach 3, which they take as true, with noise like its residuals, each row's its own. What noise shifts an approach "
    "by is taken off, so that a value may lie outside. --check=200 measures what they cover at these points",
)


def fit_points(args, rest):
    """Fits a law to the points of a file and prints every parameter with its 95% interval."""
    from rich.console import Console

    nothing_left(rest)
    console = Console(highlight=False)
    if args.law is None and not args.isoflop:
        raise ConfigError(f"--law: which one? {', '.join(record.laws())}; or package.module:name of your own")
    mapping = pairs("--columns", args.columns)
    fixed = {name: number(f"--fixed={name}", value) for name, value in pairs("--fixed", args.fixed).items()}
    if args.isoflop:
        return _isoflop(args, console, mapping)
    form = record.law_named(args.law)
    for name in set(mapping) - {*form.inputs, form.y, *(filter(None, (args.group, args.weights, args.clusters)))}:
        raise ConfigError(
            f"--columns={name}: {form.name} has no variable {name!r}{records.suggest(name, (*form.inputs, form.y))}; it has {', '.join((*form.inputs, form.y))}"
        )
    _check_options(args, form, fixed)
    extra = [name for name in (args.group, args.clusters) if name]
    numeric = (*form.inputs, form.y, *((args.weights,) if args.weights else ()))
    frame = _points(args, console, mapping, numeric, extra, form.y)
    parts = [("", frame)] if args.group is None else [(str(name), part) for name, part in frame.groupby(args.group)]
    entries, failed = [], 0
    console.print(f"[bold]{form.name}[/bold]  {form.equation}")
    console.print(f"source: {form.source}", style="dim", soft_wrap=True)
    for name, part in parts:
        try:
            entries.append(_one_fit(args, console, form, name, part, fixed))
        except (NotTestable, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            failed += 1
            console.print(f"{name + ': ' if name else ''}not fitted: {_with_lines(str(error), part)}", style="yellow", soft_wrap=True)
    if args.json and entries:
        _write(Path(args.json), {"schema": record.SCHEMA, "points": Path(args.points).name, "fits": [entry for entry, _ in entries]})
    if args.figure and entries:
        _draw(Path(args.figure), entries)
    if entries:
        console.print(f"next: {_next(args, *entries[0])}", soft_wrap=True)
    return 2 if failed and not entries else 1 if failed else 0


FEWEST_RESAMPLES, FEWEST_WORLDS = 100, 20
PICTURES = (".svg", ".png", ".pdf")


def _check_options(args, form, fixed):
    """Refuses what would fail, or mean nothing, only after the work."""
    for option, least in (("bootstrap", FEWEST_RESAMPLES), ("check", FEWEST_WORLDS)):
        count = getattr(args, option)
        if count and count < least:
            raise ConfigError(f"--{option}={count}: too few to tell 95% from less; give {least} or more, or 0 for none")
    if args.seed < 0:
        raise ConfigError(f"--seed={args.seed}: expected an integer from 0")
    if not 0 < args.delta < float("inf"):
        raise ConfigError(f"--delta={args.delta:g}: expected a positive number, a residual of ln {form.y}; the default is 1e-3")
    for name in fixed:
        if name not in form.params:
            raise ConfigError(
                f"--fixed={name}: {form.name} has no parameter {name!r}{records.suggest(name, form.params)}; it has {', '.join(form.params)}"
            )
    for option in ("json", "figure"):
        path = getattr(args, option) and Path(getattr(args, option))
        if path and not path.parent.is_dir():
            raise ConfigError(f"--{option}={path}: its directory does not exist; make it first")
        if path and option == "figure" and path.suffix not in PICTURES:
            raise ConfigError(f"--figure={path}: expected a name that ends in {', '.join(PICTURES)}")


def _points(args, console, mapping, numeric, group, y):
    """The points of the file; of trajectories one per run, or per run and step."""
    if args.trajectories is None:
        return tables.read_points(args.points, columns=mapping, needed=numeric, group=group)
    read = trajectories.read_trajectories(args.points)
    at = (
        args.trajectories
        if args.trajectories in ("last", "min")
        else [int(number("--trajectories", step)) for step in args.trajectories.split(",")]
    )
    rows = trajectories.to_rows(read, mapping.get(y, y), at)
    for note in read.notes:
        console.print(f"  {note}", style="yellow", soft_wrap=True)
    for run, note in zip(rows["run"], rows["note"], strict=True):
        if note:
            console.print(f"  run {run}: {note}", style="yellow", soft_wrap=True)
    return tables.points(rows, columns=mapping, needed=numeric, group=group)


def _one_fit(args, console, form, name, part, fixed):
    """Fits one group and prints it; returns its entry of fit.json and the Fit."""
    weights = None if args.weights is None else part[args.weights].to_numpy()
    clusters = None if args.clusters is None else part[args.clusters].to_numpy()
    found = fit(
        form,
        part.reset_index(drop=True),
        fixed=fixed,
        weights=weights,
        loss=args.loss,
        delta=args.delta,
        solver=args.solver,
        clusters=clusters,
    )
    ends, samples, notes = _intervals(args, found)
    rows = [(one, f"{found[one]:.5g}", "given" if one in found.fixed else span(*ends[one]) if ends[one] else "none") for one in form.params]
    if {"alpha", "beta", "A", "B"} <= set(form.params) and found.identified:
        exponent = lambda p: p["beta"] / (p["alpha"] + p["beta"])
        try:
            share = intervals.interval(found, exponent, clusters=clusters)
            rows.append(("N_opt ~ C^a, a", f"{share.value:.4g}", span(share.low, share.high)))
        except NotTestable:
            pass
    console.print("")
    console.print(
        f"{name + ': ' if name else ''}{found.n} points, {found.loss_kind}, r2 {found.r2:.5f}, objective {found.objective:.6g}",
        soft_wrap=True,
    )
    console.print(f"intervals: {notes}", style="dim", soft_wrap=True)
    console.print(table(("parameter", "value", "95% interval"), rows))
    checked = _checked(args, console, found) if args.check else {}
    for warning in found.warnings:
        console.print(f"  {_with_lines(warning, part)}", style="yellow", soft_wrap=True)
    entry = record.to_json(found, name, ends, samples, args.seed if args.bootstrap else None, law=args.law, intervals=notes, **checked)
    entry["warnings"] = [_with_lines(warning, part) for warning in found.warnings]
    return entry, found


def _checked(args, console, found):
    """Measures and prints what the intervals of the parameters cover at this design; returns it as an entry of fit.json."""
    from scaling_jax.laws import measured

    method = "percentile" if args.bootstrap else None
    seen = measured.measured_coverage(found, found.free, args.check, args.seed, method=method)
    for name, one in seen.items():
        console.print(f"  {name}: a stated 95% interval {one}", style="dim", soft_wrap=True)
    return {"coverage": {name: {"covered": one.covered, "error": one.error, "worlds": one.worlds} for name, one in seen.items()}}


def _intervals(args, found):
    """Ends of every free parameter, bootstrap draws that fit.json keeps, and how the ends were made."""
    if args.bootstrap:
        drawn = resample.bootstrap(found, args.bootstrap, args.seed, found.points.clusters)
        ends = {name: intervals.quantiles(drawn.samples[name], found[name], 0.95, groups=drawn.groups) for name in found.free}
        few = np.linspace(0, len(drawn.samples[found.form.params[0]]) - 1, min(record.SAMPLES, args.bootstrap)).astype(int)
        lost = drawn.degenerate + drawn.lost
        notes = f"bootstrap, {args.bootstrap} resamples" + (f", {lost:.1%} of them could not be fitted" if lost else "")
        return ends, {name: drawn.samples[name][few] for name in found.free}, notes
    ends, notes = {}, "profile" if found.points.clusters is None else "jackknife over clusters"
    for name in found.free:
        try:
            one = intervals.interval(found, name)
            ends[name] = (one.low, one.high)
        except NotTestable:
            ends[name] = None
    return ends, None, notes


def _isoflop(args, console, mapping):
    """Prints the three approaches, for each group."""
    for option in ("law", "loss", "weights", "clusters", "json", "figure", "fixed"):
        if getattr(args, option):
            raise ConfigError(f"--{option}={getattr(args, option)}: has no meaning with --isoflop; leave it out, or fit --law=chinchilla")
    if args.bootstrap or args.solver != "newton" or args.delta != DELTA:
        raise ConfigError("--bootstrap, --solver, --delta: have no meaning with --isoflop; leave them out, or fit --law=chinchilla")
    extra = [name for name in (args.group, args.budget) if name]
    frame = _points(args, console, mapping, ("params", "tokens", "loss"), extra, "loss")
    parts = [("", frame)] if args.group is None else [(str(name), part) for name, part in frame.groupby(args.group)]
    console.print("[bold]compute-optimal size[/bold]  N_opt(C) = k C^a, D_opt = C / (6 N_opt)")
    shown = [_approaches(args, console, name, part) for name, part in parts]
    for note in ISOFLOP_NOTES:
        console.print(note, style="dim", soft_wrap=True)
    return 0 if all(shown) else 1


def _approaches(args, console, group, frame):
    """Prints the three approaches on one set of points; returns whether any of them has an answer."""
    found = isoflop.isoflop(frame, args.budget, seed=args.seed)
    if group:
        console.print(f"\n{group}: {len(frame)} points")
    compute = 10 * float((6 * frame["params"] * frame["tokens"]).max())
    exponents, optima = found.exponents(), found.optimum(compute)
    bias = {line.name: "unknown" if line.bias is None else f"{line.bias:+.3f}" for line in (found.envelope, found.parabolas)}
    rows = [(name, f"{value:.4g}", span(low, high), bias.get(name, "0")) for name, (value, low, high) in exponents.items()]
    console.print(table(("approach", "a", "95% interval", "bias"), rows))
    console.print(f"\nat {compute:.3g} FLOPs, ten times the largest:")
    ends = lambda name, key: (f"{optima[name][key][0]:.3g}", span(*optima[name][key][1:]))
    rows = [(name, *ends(name, "params"), *ends(name, "tokens")) for name in optima]
    console.print(table(("approach", "N_opt", "95% interval", "D_opt", "95% interval"), rows))
    for line in (found.envelope, found.parabolas):
        if line.reason:
            console.print(f"{line.name}: none, {line.reason}", style="yellow", soft_wrap=True)
        elif line.lost:
            console.print(f"{line.name}: {line.lost:.1%} of the worlds behind its intervals have no answer", style="yellow", soft_wrap=True)
    if found.law is None:
        console.print(f"3 law: none, {found.reason}", style="yellow", soft_wrap=True)
    elif args.check:
        seen = isoflop.covered(found.law, frame, compute, budget=args.budget, worlds=args.check, seed=args.seed)
        for name in exponents:
            for quantity, one in seen[name].items():
                words = "N_opt and D_opt" if quantity == "N_opt" else quantity
                console.print(f"  {name}, {words}: a stated 95% interval {one}", style="dim", soft_wrap=True)
    return bool(exponents)


def _with_lines(message, part):
    """Messages count rows of the part that was fitted; people count lines of their file."""
    return re.sub(r"\brow (\d+)\b", lambda found: f"{part.index.name or 'row'} {part.index[int(found[1])]}", message)


def _draw(path, entries):
    for entry, found in entries:
        group = "".join(c if c.isalnum() or c in "-_." else "_" for c in entry["group"])
        found.plot(path if len(entries) == 1 else path.with_name(f"{path.stem}_{group}{path.suffix}"))


def _write(path, content):
    try:
        path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json={path}: cannot be written ({error})") from error


def _next(args, entry, found):
    group = f" --group={shlex.quote(entry['group'])}" if args.group else ""
    beyond = ",".join(f"{name}={10 * values.max():.3g}" for name, values in found.points.columns.items())
    if args.json:
        return f"scaling-jax predict {shlex.quote(args.json)}{group} --at {beyond}"
    return f"scaling-jax fit {shlex.quote(args.points)} --law={args.law} --json=fit.json, then scaling-jax predict fit.json --at {beyond}"
