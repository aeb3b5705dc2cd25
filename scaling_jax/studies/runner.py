"""Runs a study in a directory: plan, train, simulate, score, judge, report; does only what is missing.

Directory: plan.json, cohorts/<id>/, runs/<identity>/, rows.csv, fit.json, verdict.json, figures/*.svg, report.html.
"""

import functools
import os
import time
from pathlib import Path

from scaling_jax import config as cfg
from scaling_jax import records
from scaling_jax.data.corpus import described, open_corpus
from scaling_jax.parallel import cost
from scaling_jax.records import ConfigError
from scaling_jax.studies import cohorts as cohorts_
from scaling_jax.studies import simulations
from scaling_jax.studies import study as studies
from scaling_jax.train import lock, loop, preemption, trajectory
from scaling_jax.train.progress import Progress, sparkline

SCHEMA = 1


def load(name):
    """The STUDY of a file, given by path or by the name of one of ours, and that file's name."""
    path = cfg.find("experiments", name)
    module = cfg.import_file(path)
    if not isinstance(getattr(module, "STUDY", None), studies.Study):
        raise ConfigError(f"{name}: {path} defines no STUDY; a study file ends in STUDY = Study(...)")
    return module.STUDY, path.parent.name if path.name == "study.py" else path.stem


def run(name, scale, workdir, until=None, dry_run=False, ablate=None, overrides=None, quiet=False):
    """Runs study `name` at `scale` below `workdir`; returns the verdicts (None after a dry run).

    Args:
      until: stop after this stage; claims that need later ones are not testable yet.
      ablate: number of a claim (from 1) whose mechanism is taken out everywhere.
      overrides: dotted config field -> value, over those of the scale: a data path, a model switch.
    """
    workdir = Path(workdir)
    study, title = load(name)
    ablation = _ablation(study, ablate)
    state = study.at(scale, ablation, overrides)
    progress = Progress(quiet=quiet)
    corpus = None if state.base is None else open_corpus(state.base.data)
    origin = f"arXiv:{study.paper}" if study.paper else "our own question, no paper"
    progress.print(f"[bold]{study.title}[/bold]  {origin}  scale {scale}")
    if corpus is None:
        progress.print("no corpus: this study trains nothing")
    else:
        progress.print(described(corpus))
    mine = _whose(title, scale, corpus, ablate, _result_changing(state, overrides))
    _refuse_foreign(workdir, mine, state.base)
    ahead = _announce(study, state, workdir, until, progress)
    if dry_run:
        progress.print(f"dry run: nothing was {'trained' if corpus else 'simulated'}")
        return None
    with lock.held(workdir):
        trajectory.write_json(workdir / "study.json", mine)
        began, spent = time.perf_counter(), os.times()
        with progress:
            progress.total = ahead
            execute = functools.partial(_execute, workdir, title, scale, state, progress)
            done = studies.walk(study, state, execute, until)
        clock = {"wall_seconds": time.perf_counter() - began, "cpu_seconds": sum(os.times()[:2]) - sum(spent[:2])}
        clock = {f"last_start_{name}": value for name, value in clock.items()}
        if corpus is not None:
            clock["training_seconds"] = _training_seconds(workdir)
        simulated = {unit.identity: unit for group in done.values() for unit in group if unit.kind == "simulate"}
        if simulated:
            clock["simulation_seconds"] = sum(simulations.seconds(simulated.values(), workdir))
        from scaling_jax.studies import outcome

        verdicts, estimates = outcome.write(study, state, done, workdir, title, scale, corpus, clock, ablation)
        outcome.show(
            progress,
            study,
            verdicts,
            estimates,
            workdir,
            outcome.next_command(name, scale, workdir, study.scales, until, ablate, overrides),
        )
        return verdicts


def _announce(study, state, workdir, until, progress):
    """Prints programs, members, parameters, FLOPs, memory and time, and the simulations; returns the expected training seconds ahead."""
    planned = studies.forecast(study, state, until, functools.partial(loop.result, workdir))
    every = list({unit.identity: unit for group in planned.values() for unit in group}.values())
    fresh = [unit for unit in every if loop.result(workdir, unit.identity) is None]
    cohorts = cohorts_.group(fresh)
    if cohorts:
        progress.print(cohorts_.table(cohorts, len(every) - len(fresh)))
    scores = sum(unit.kind == "score" for unit in fresh)
    seconds = sum(c.seconds for c in cohorts)
    adaptive = [stage.name for stage in study.stages if stage.split == "tune" and stage.name in planned]
    more = f"; {', '.join(adaptive)} may ask for more once they have seen their {'losses' if state.base else 'results'}" if adaptive else ""
    if not fresh:
        progress.print(f"all {len(every)} units are finished already")
    ahead = [unit for unit in fresh if unit.kind == "simulate"]
    if ahead:
        waiting = {unit.identity for unit in ahead}
        finished = [unit for unit in every if unit.kind == "simulate" and unit.identity not in waiting]
        progress.print(_simulations_ahead(ahead, finished, workdir) + ("" if cohorts or scores else more))
    if cohorts or scores:
        progress.print(
            f"at least {cost.duration(seconds)} on this machine ({cost.peak()[1]}: {cost.people(cost.peak()[0], 'FLOP/s')}), {scores} ensembles to score{more}"
        )
    return seconds


def _simulations_ahead(ahead, finished, workdir):
    """How many simulations are to run, and how long the finished ones took: nothing else is known about their time."""
    names = {unit.config.function.__qualname__ for unit in ahead}
    took = simulations.seconds([unit for unit in finished if unit.config.function.__qualname__ in names], workdir)
    text = f"{len(ahead)} simulations to run ({', '.join(sorted(names))})"
    if not took:
        return f"{text}; their time is not forecast, none has been measured here"
    each = sum(took) / len(took)
    return f"{text}, about {cost.duration(each * len(ahead))} if they take as long as the {len(took)} finished ones ({each:.2g} s each)"


def _execute(workdir, title, scale, state, progress, stage, known, missing):
    """Brings the missing units of a stage into state.results: from disk, by training, by simulating, by scoring."""
    for unit in list(missing):
        metrics = loop.result(workdir, unit.identity)
        if metrics is not None:
            state.results[unit.identity] = metrics
            missing.remove(unit)
    cohorts = cohorts_.group(missing, cohorts_.read_plan(workdir), known)
    simulated = [unit for unit in missing if unit.kind == "simulate"]
    cohorts_.write_plan(workdir, title, scale, cohorts, simulated)
    progress.total = max(progress.total, progress.done + sum(c.seconds for c in cohorts))
    for cohort in cohorts:
        preemption.obey(f"{stage.name}: all finished runs")
        runs = [unit.config for unit in cohort.units]
        begin = time.perf_counter()
        results = loop.train(runs, open_corpus(runs[0].data), workdir, progress, f"{stage.name}: {cohort.name}")
        state.results.update(results)
        progress.print(_line(stage, cohort, results, workdir, time.perf_counter() - begin))
    _simulate(workdir, simulated, state, progress, stage)
    for unit in missing:
        preemption.obey(f"{stage.name}: all finished units")
        if unit.kind == "score":
            state.results[unit.identity] = _score(workdir, unit, known, progress, stage)


def _simulate(workdir, units, state, progress, stage):
    """Runs simulations one after another; a line says how many and how long."""
    begin = time.perf_counter()
    for i, unit in enumerate(units):
        preemption.obey(f"{stage.name}: {i} of {len(units)} simulations")
        progress.say(f"{stage.name}: simulation {i + 1} of {len(units)}" + "".join(f", {name} {value}" for name, value in unit.labels))
        state.results[unit.identity] = simulations.run(unit, workdir)
    if units:
        progress.print(f"{stage.name}: {len(units)} simulations  ({time.perf_counter() - begin:.1f} s)")


def _score(workdir, unit, known, progress, stage):
    """Scores the teams of an ensemble unit out of its parents' saved weights."""
    from scaling_jax.data import stream
    from scaling_jax.inference import ensemble
    from scaling_jax.train import checkpoint

    run = known[unit.parents[0]].config
    models = [checkpoint.load_params(workdir / "runs" / parent / "params") for parent in unit.parents]
    windows = stream.evaluation(open_corpus(run.data), run.data, unit.config.split)
    begin = time.perf_counter()
    losses = ensemble.team_losses(run, models, unit.config.teams, windows, unit.config.average)
    metrics = {"losses": [float(loss) for loss in losses]}
    folder = workdir / "runs" / unit.identity
    folder.mkdir(parents=True, exist_ok=True)
    trajectory.write_result(folder, "score", metrics)
    sizes = [len(team) for team in unit.config.teams]
    best = min((loss, size) for loss, size in zip(losses, sizes, strict=True))
    progress.print(
        f"{stage.name}: {len(sizes)} teams of {len(models)} models, lowest loss {best[0]:.3f} with {best[1]}  ({time.perf_counter() - begin:.1f} s)"
    )
    return metrics


def _line(stage, cohort, results, workdir, seconds):
    """A line per finished cohort: losses, and the curve of its first member."""
    split = cohort.units[0].config.train.evaluate[0]
    losses = [results[unit.identity].get(f"{split}/loss", results[unit.identity]["train/loss"]) for unit in cohort.units]
    curve = trajectory.read(workdir / "runs" / cohort.units[0].identity)["train/loss"].tolist()
    span = f"{min(losses):.3f}" if len(losses) == 1 else f"{min(losses):.3f} to {max(losses):.3f}"
    return f"{stage.name}: {cohort.name}  {split} loss {span}  {sparkline(curve)}  ({seconds:.1f} s)"


def _whose(title, scale, corpus, ablate, overrides):
    """What a directory belongs to: its study.json."""
    return {
        "schema": SCHEMA,
        "study": title,
        "scale": scale,
        "corpus": corpus and corpus.fingerprint,
        "ablate": ablate,
        "overrides": overrides,
    }


def _refuse_foreign(workdir, mine, base):
    """Refuses a directory that belongs to another study, scale, corpus or ablation; `base` says where the corpus came from."""
    path = workdir / "study.json"
    theirs = trajectory.read_json(path) if path.is_file() else mine
    for name, value in mine.items():
        if theirs.get(name) != value:
            if name == "corpus" and value and theirs.get(name):
                what = (
                    f"config.data.path = {base.data.path!r}" if base.data.source == "file" else f"config.data.source = {base.data.source!r}"
                )
                raise ConfigError(
                    f"{what}: its tokens have fingerprint {value}, and --workdir={workdir} was begun on {theirs[name]}; put the tokens back to go on, or choose another directory for the new ones"
                )
            raise ConfigError(
                f"--workdir={workdir}: holds {name} = {theirs.get(name)!r}, not {value!r}; choose another directory, or delete this one"
            )


def _result_changing(state, overrides):
    """The overrides that a directory is bound to: a token file may move (its fingerprint is compared), a log may get denser."""
    return {name: value for name, value in (overrides or {}).items() if not records.is_recorded(state.base, name)}


def _training_seconds(workdir):
    """Seconds spent in training steps over all starts; every member of a cohort has the cohort's timings."""
    first = [trajectory.read_json(path)["members"][0] for path in workdir.glob("cohorts/*/members.json")]
    return sum(sum(trajectory.timings(workdir / "runs" / run)) for run in first)


def _ablation(study, number):
    if number is None:
        return None
    if not 1 <= number <= len(study.claims):
        raise ConfigError(f"--ablate={number}: this study has claims 1 to {len(study.claims)}")
    return dict(study.claims[number - 1].ablation)
