"""`scaling-jax predict FIT.json --at name=value,...`: a fitted law somewhere else, with its bands; sealed, scored, or planned for."""

import json
import shlex
from pathlib import Path

import numpy as np

from scaling_jax import records
from scaling_jax.laws import derived, intervals, record, tables
from scaling_jax.laws.form import NotTestable
from scaling_jax.laws.shell_words import nothing_left, number, pairs, span, table
from scaling_jax.records import ConfigError

FAR = 10.0  # factor beyond the fitted points from which on a prediction is called far
SHOWN = 12  # candidate runs listed, best first


def predict(args, rest):
    """Predicts with a fitted law, with the 95% bands of the law and of one new run; or seals the forecast, or scores a sealed one."""
    from rich.console import Console

    nothing_left(rest)
    console = Console(highlight=False)
    if args.score:
        return _score(args, console)
    entry = _entry(args)
    found = record.from_json(entry)
    if not args.at and not (args.next and args.of):
        raise ConfigError(f"--at: where? {','.join(f'{name}=VALUE' for name in found.form.inputs)}")
    places = [_place(found, text) for text in args.at]
    if args.seal and args.next:
        raise ConfigError(f"--next={args.next}: a seal holds a forecast and nothing else; ask for the next run by itself")
    if args.seal:
        return _seal(args, console, found, places)
    if args.next:
        return _next_run(args, console, found, places)
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


def _seal(args, console, found, places):
    from scaling_jax.laws import seal

    if len(places) > 1:
        raise ConfigError("--at: a seal holds one forecast; seal each of them by itself")
    law = _entry(args)["law"]
    register = args.register or Path(args.seal).with_name("register.jsonl")
    sealed = seal.seal(found, places[0], args.seal, law=law, register=register)
    for warning in found.warnings:
        console.print(f"  {warning}", style="yellow", soft_wrap=True)
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
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `scaling-jax fit ... --json={path}` writes it") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a fit that `scaling-jax fit --json` wrote ({error})") from error
    if isinstance(content, dict) and content.get("what") == "sealed prediction":
        raise ConfigError(f"{path}: a sealed prediction; compare it with what was observed (--score --observed=VALUE)")
    entries = content.get("fits", [content]) if isinstance(content, dict) else []
    groups = [str(entry.get("group", "")) for entry in entries]
    if args.group is not None and args.group not in groups:
        raise ConfigError(f"--group={args.group}: {path} has {', '.join(groups)}{records.suggest(args.group, groups)}")
    if args.group is None and len(entries) != 1:
        raise ConfigError(f"--group: {path} has {len(entries)} fits ({', '.join(groups)}); say which")
    return entries[groups.index(args.group) if args.group is not None else 0]


def _place(found, text):
    """The inputs of one --at, all of the law's and no other."""
    named = pairs("--at", text)
    for name in named:
        if name not in found.form.inputs:
            raise ConfigError(
                f"--at {name}={named[name]}: {found.form.name} has no input {name!r}{records.suggest(name, found.form.inputs)}; it has {', '.join(found.form.inputs)}"
            )
    given = {name: number(f"--at {name}", value, name) for name, value in named.items()}
    if missing := [name for name in found.form.inputs if name not in given]:
        raise ConfigError(f"--at {text}: {missing[0]} is missing; {found.form.name} needs {', '.join(found.form.inputs)}")
    if found.form.positive and (wrong := [name for name, value in given.items() if not value > 0]):
        raise ConfigError(f"--at {wrong[0]}={given[wrong[0]]:g}: {found.form.name} takes numbers above zero")
    return given


def _next_run(args, console, found, places):
    """Lists which candidate run narrows the forecast, or a parameter's interval, most per FLOP."""
    from scaling_jax.laws import design

    if args.of and args.of not in found.free:
        raise ConfigError(f"--of={args.of}: {found.form.name} has fitted {', '.join(found.free)}{records.suggest(args.of, found.free)}")
    quantity, what = args.of, args.of
    if not args.of:
        quantity = intervals.law_at(found.form, {name: np.array([value]) for name, value in places[0].items()})
        what = f"{found.form.y} at {', '.join(f'{name} = {value:g}' for name, value in places[0].items())}"
    candidates = tables.read_points(args.next, columns=pairs("--columns", args.columns), needed=found.form.inputs)
    ranked = design.next_run(found, candidates, quantity)
    first = ranked.iloc[0]
    console.print(
        f"which next run narrows the interval of {what} most per cost (first row), taking the law as linear near the fit; so its width now is "
        f"{first.width_before:.4g}. Cost: the candidates' column, or 6 N D FLOP",
        soft_wrap=True,
    )
    rows = []
    for line, row in ranked.head(SHOWN).iterrows():
        inputs = [f"{row[name]:.4g}" for name in found.form.inputs]
        rows.append(
            (str(line), *inputs, f"{row.cost:.3g}", f"{row.width_after:.4g}", f"{row.shrinkage:.1%}", f"{row.shrinkage_per_cost:.3g}")
        )
    columns = (ranked.index.name or "row", *found.form.inputs, "cost", "width after", "narrower by", "per cost")
    console.print(table(columns, rows))
    for line, note in ranked.head(SHOWN)["note"].items():
        if note:
            console.print(f"  {ranked.index.name or 'row'} {line}: {note}", style="yellow", soft_wrap=True)
    return 0
