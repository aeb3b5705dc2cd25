"""The shell's side of laws: `scaling-jax fit POINTS --law=NAME` and `scaling-jax predict FIT.json --at name=value,...`."""

import json
import math
import re
import shlex
from pathlib import Path

import numpy as np

from scaling_jax import records
from scaling_jax.laws import derived, intervals, isoflop, record, resample, tables, trajectories
from scaling_jax.laws.fitting import fit
from scaling_jax.laws.form import NotTestable
from scaling_jax.records import ConfigError

FAR = 10.0  # factor beyond the fitted points from which on a prediction is called far


def add_parsers(commands):
    """Adds `fit` and `predict` to the command line."""
    one = commands.add_parser("fit", help="a law fitted to your own points, with intervals", description=fit_points.__doc__)
    one.add_argument("points", metavar="POINTS.csv", help="CSV, TSV, Parquet or JSON lines; columns named by the law's variables")
    one.add_argument(
        "--trajectories",
        metavar="last|min|STEP,...",
        help="POINTS are trajectories (tables, W&B exports, TensorBoard files, our run folders): a point per run, there",
    )
    one.add_argument("--law", metavar="NAME", help="one of laws/forms.py, or package.module:name; left out, the laws are listed")
    one.add_argument("--columns", default="", metavar="params=N,...", help="which column of the file holds which variable")
    one.add_argument("--group", metavar="COLUMN", help="a fit of its own for each value of this column")
    one.add_argument("--loss", choices=("lsq", "log", "huber"), help="default: the law's own")
    one.add_argument("--delta", type=float, default=1e-3, help="where Huber's loss of ln y turns from squares to absolute values")
    one.add_argument("--fixed", default="", metavar="alpha=0.34,...", help="parameters that are given, not fitted")
    one.add_argument("--weights", metavar="COLUMN", help="column of row weights")
    one.add_argument("--clusters", metavar="COLUMN", help="rows that share a value are one observation, such as a seed's")
    one.add_argument(
        "--bootstrap", type=int, default=0, metavar="COUNT", help="percentile intervals of COUNT resamples instead of profiles"
    )
    one.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    one.add_argument("--solver", choices=("newton", "scipy"), default="newton")
    one.add_argument("--isoflop", action="store_true", help="compute-optimal size by Chinchilla's approaches 1, 2 and 3")
    one.add_argument("--json", metavar="FILE", help="write the fit, for `predict`")
    one.add_argument("--figure", metavar="FILE.svg", help="draw points, law and band")
    one.set_defaults(command=fit_points, quick=True)
    two = commands.add_parser("predict", help="a fitted law somewhere else, with its band", description=predict.__doc__)
    two.add_argument("fit", metavar="FIT.json", help="what `fit --json` wrote, or a sealed prediction")
    two.add_argument("--at", action="append", default=[], metavar="params=7e9,tokens=2e12", help="where; may be given again")
    two.add_argument("--group", metavar="VALUE", help="which of the file's fits")
    two.add_argument("--seal", metavar="FILE", help="freeze fit and forecast in FILE, before the run is made")
    two.add_argument("--score", action="store_true", help="FIT.json is a sealed prediction: compare it with what was observed")
    two.add_argument("--observed", metavar="VALUE,...", help="what the run, or runs, gave")
    two.add_argument(
        "--register", metavar="FILE", help="register of sealed and scored predictions, appended to; default: register.jsonl beside the seal"
    )
    two.set_defaults(command=predict, quick=True)


def fit_points(args, rest):
    """Fits a law to the points of a file and prints every parameter with its 95% interval."""
    from rich.console import Console

    _nothing_left(rest)
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
        console.print(f"next: {_next(args, form, entries[0][1])}", soft_wrap=True)
    return 2 if failed and not entries else 1 if failed else 0


def predict(args, rest):
    """Predicts with a fitted law, with the 95% bands of the law and of one new run; or seals the forecast, or scores a sealed one."""
    from rich.console import Console

    _nothing_left(rest)
    console = Console(highlight=False)
    if args.score:
        return _score(args, console)
    entry = _entry(args)
    found = record.from_json(entry)
    if not args.at:
        raise ConfigError(f"--at: where? {','.join(f'{name}=VALUE' for name in found.form.inputs)}")
    places = [_place(found, text) for text in args.at]
    if args.seal:
        return _seal(args, console, found, places)
    title = f"{found.form.name}{' of ' + entry['group'] if entry.get('group') else ''}, {found.n} points, {found.loss_kind}"
    console.print(f"[bold]{title}[/bold]")
    for warning in found.warnings:
        console.print(f"  {warning}", style="yellow", soft_wrap=True)
    for place in places:
        where = ", ".join(f"{name} = {value:g}" for name, value in place.items())
        console.print(f"{found.form.y} at {where}: {float(found.predict(place)):.5g}")
        for kind, words in (("law", "95% band of the law    "), ("run", "95% band of one new run")):
            try:
                band = found.band(place, kind=kind)
                console.print(f"  {words}  {span(float(band.low[0]), float(band.high[0]))}")
            except (NotTestable, ValueError) as error:
                console.print(f"  {words}  none: {error}", style="yellow", soft_wrap=True)
        for name, factor in derived.extrapolation(found, place).items() if found.points is not None else ():
            console.print(f"  {name} lies {factor:.3g} times beyond the fitted points", style="yellow" if factor > FAR else "dim")
    return 0


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
    found = fit(form, part.reset_index(drop=True), fixed=fixed, weights=weights, loss=args.loss, delta=args.delta, solver=args.solver)
    ends, samples, notes = _intervals(args, found, clusters)
    rows = [(one, f"{found[one]:.5g}", "given" if one in found.fixed else span(*ends[one]) if ends[one] else "none") for one in form.params]
    if {"alpha", "beta", "A", "B"} <= set(form.params) and found.identified:
        exponent = lambda p: p["beta"] / (p["alpha"] + p["beta"])
        try:
            share = intervals.interval(found, exponent)
            rows.append(("N_opt ~ C^a, a", f"{share.value:.4g}", span(share.low, share.high)))
        except NotTestable:
            pass
    console.print("")
    console.print(
        f"{name + ': ' if name else ''}{found.n} points, {found.loss_kind}, r2 {found.r2:.5f}, objective {found.objective:.6g}",
        soft_wrap=True,
    )
    console.print(f"intervals: {notes}", style="dim", soft_wrap=True)
    console.print(_table(("parameter", "value", "95% interval"), rows))
    for warning in found.warnings:
        console.print(f"  {_with_lines(warning, part)}", style="yellow", soft_wrap=True)
    entry = record.to_json(found, name, ends, samples, args.seed if args.bootstrap else None, law=args.law, intervals=notes)
    return entry, found


def _intervals(args, found, clusters):
    """Ends of every free parameter, bootstrap draws that fit.json keeps, and how the ends were made."""
    if args.bootstrap:
        drawn = resample.bootstrap(found, args.bootstrap, args.seed, clusters)
        ends = {name: intervals.quantiles(drawn.samples[name], found[name], 0.95) for name in found.free}
        few = np.linspace(0, len(drawn.samples[found.form.params[0]]) - 1, min(record.SAMPLES, args.bootstrap)).astype(int)
        lost = drawn.degenerate + drawn.lost
        notes = f"bootstrap, {args.bootstrap} resamples" + (f", {lost:.1%} of them could not be fitted" if lost else "")
        return ends, {name: drawn.samples[name][few] for name in found.free}, notes
    ends, notes = {}, "profile" if clusters is None else "jackknife over clusters"
    for name in found.free:
        try:
            one = intervals.interval(found, name, clusters=clusters)
            ends[name] = (one.low, one.high)
        except NotTestable:
            ends[name] = None
    return ends, None, notes


def _isoflop(args, console, mapping):
    frame = _points(args, console, mapping, ("params", "tokens", "loss"), [args.group] if args.group else [], "loss")
    found = isoflop.isoflop(frame, args.group)
    console.print("[bold]compute-optimal size[/bold]  N_opt(C) = k C^a, D_opt = C / (6 N_opt)")
    compute = 10 * float((6 * frame["params"] * frame["tokens"]).max())
    exponents, optima = found.exponents(), found.optimum(compute)
    bias = {line.name: "unknown" if line.bias is None else f"{line.bias:+.3f}" for line in (found.envelope, found.parabolas)}
    rows = [(name, f"{value:.4g}", span(low, high), bias.get(name, "0")) for name, (value, low, high) in exponents.items()]
    console.print(_table(("approach", "a", "95% interval", "bias"), rows))
    console.print(f"\nat {compute:.3g} FLOPs, ten times the largest:")
    ends = lambda name, key: (f"{optima[name][key][0]:.3g}", span(*optima[name][key][1:]))
    rows = [(name, *ends(name, "params"), *ends(name, "tokens")) for name in optima]
    console.print(_table(("approach", "N_opt", "95% interval", "D_opt", "95% interval"), rows))
    for name, reason in ((line.name, line.reason) for line in (found.envelope, found.parabolas)):
        if reason:
            console.print(f"{name}: none, {reason}", style="yellow", soft_wrap=True)
    if found.law is None:
        console.print(f"3 law: none, {found.reason}", style="yellow", soft_wrap=True)
    console.print(
        "bias: what an approach is off by on this grid without noise, if the law of approach 3 is true", style="dim", soft_wrap=True
    )
    return 0 if exponents else 1


def _table(columns, rows):
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _seal(args, console, found, places):
    from scaling_jax.laws import seal

    if len(places) > 1:
        raise ConfigError("--at: a seal holds one forecast; seal each of them by itself")
    law = _entry(args)["law"]
    register = args.register or Path(args.seal).with_name("register.jsonl")
    sealed = seal.seal(found, places[0], args.seal, law=law, register=register)
    console.print(f"sealed in {args.seal}: {found.form.y} {sealed.predicted:.5g}, 95% band of a new run {span(*sealed.band)}")
    console.print(f"listed in {register}; sha256 {sealed.sha256}, publish it for others to believe the date", soft_wrap=True)
    console.print(f"next, when the run is in: scaling-jax predict {shlex.quote(str(args.seal))} --score --observed VALUE")
    return 0


def _score(args, console):
    from scaling_jax.laws import seal

    if args.observed is None:
        raise ConfigError("--observed: what did the run give? --observed=2.31, or several runs 2.31,2.33")
    observed = [number("--observed", value) for value in args.observed.split(",")]
    register = args.register or Path(args.fit).with_name("register.jsonl")
    scored = seal.score(args.fit, observed, register)
    for line in seal.lines(scored):
        console.print(line)
    for line in seal.lines(seal.register_summary(register)):
        console.print(line)
    return 0


def _entry(args):
    """The one entry of the file that is asked for."""
    path = Path(args.fit)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a fit that `scaling-jax fit --json` wrote ({error})") from error
    entries = content.get("fits", [content]) if isinstance(content, dict) else []
    groups = [str(entry.get("group", "")) for entry in entries]
    if args.group is not None and args.group not in groups:
        raise ConfigError(f"--group={args.group}: {path} has {', '.join(groups)}{records.suggest(args.group, groups)}")
    if args.group is None and len(entries) != 1:
        raise ConfigError(f"--group: {path} has {len(entries)} fits ({', '.join(groups)}); say which")
    return entries[groups.index(args.group) if args.group is not None else 0]


def _place(found, text):
    """The inputs of one --at, all of the law's and no other."""
    given = {name: number(f"--at {name}", value, name) for name, value in pairs("--at", text).items()}
    for name in given:
        if name not in found.form.inputs:
            raise ConfigError(
                f"--at {name}={given[name]:g}: {found.form.name} has no input {name!r}{records.suggest(name, found.form.inputs)}; it has {', '.join(found.form.inputs)}"
            )
    if missing := [name for name in found.form.inputs if name not in given]:
        raise ConfigError(f"--at {text}: {missing[0]} is missing; {found.form.name} needs {', '.join(found.form.inputs)}")
    if found.form.positive and (wrong := [name for name, value in given.items() if not value > 0]):
        raise ConfigError(f"--at {wrong[0]}={given[wrong[0]]:g}: {found.form.name} takes numbers above zero")
    return given


def pairs(option, text):
    """ "params=N,loss=val" as a dict; ConfigError names the piece that is no pair."""
    out = {}
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = piece.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ConfigError(f"{option}={text}: {piece!r} is not name=value; pairs are joined by commas")
        if name.strip() in out:
            raise ConfigError(f"{option}={text}: {name.strip()} is given twice")
        out[name.strip()] = value.strip()
    return out


def number(option, text, name=""):
    """A finite number, 7B too where `name` is a count; ConfigError says which option was none."""
    try:
        return tables.number(text, tables.is_count(name))
    except ValueError as error:
        raise ConfigError(f"{option} = {text}: {error}") from error


def span(low, high):
    """ "[1.8, 1.9]"; an end that the data do not bound is said so."""
    ends = ["unbounded" if end is None or not math.isfinite(end) else f"{end:.4g}" for end in (low, high)]
    return f"[{ends[0]}, {ends[1]}]"


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


def _next(args, form, found):
    beyond = ",".join(f"{name}={10 * values.max():.3g}" for name, values in found.points.columns.items())
    if args.json:
        return f"scaling-jax predict {shlex.quote(args.json)} --at {beyond}"
    return f"scaling-jax fit {shlex.quote(args.points)} --law={args.law} --json=fit.json, then scaling-jax predict fit.json --at {beyond}"


def _nothing_left(rest):
    if rest:
        raise ConfigError(f"{rest[0]}: no such option here")
