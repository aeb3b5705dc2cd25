"""A study: a paper's question as stages of units, a law, claims and figures; one typed object in one short file.

A stage is a function `(state) -> units`. It is called until every unit it asks for is there: a grid asks once,
a tuning stage looks at its losses and asks again, a dependent stage builds on runs of earlier stages.
`walk` is that loop; the laboratory, the forecast of its cost and the planted worlds that measure its error
rates all go through it.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from scaling_jax import config as cfg
from scaling_jax import records
from scaling_jax.data import stream
from scaling_jax.data.corpus import open_corpus
from scaling_jax.records import ConfigError
from scaling_jax.studies import simulations
from scaling_jax.studies import units as units_

UNKNOWN = simulations.UNKNOWN  # nats per token of a run that a forecast only imagines: no better than any that is known
TUNING_SEED = 1_000_000  # seeds from here on belong to tuning stages, those below to claims


class SplitError(RuntimeError):
    """A tuning stage tried to look at the test split, or a seed was used on both sides."""


@dataclass(frozen=True)
class Stage:
    """One step of a study.

    split: "tune" for stages that choose hyper-parameters (tuning seeds, tune split), "test" for those claims
    are measured on.
    """

    name: str
    expand: Callable
    split: str = "test"


@dataclass(frozen=True)
class Law:
    """A law the study fits to means over `x` of the rows of `where`, one fit per value of `by`; it goes to fit.json."""

    title: str
    form: object
    x: str
    where: Mapping
    by: str | None = None


@dataclass(frozen=True)
class Estimate:
    """A number the study reports with its interval, and makes no claim about: `statistic(data) -> float`."""

    text: str
    statistic: Callable
    unit: str = ""
    paper_value: float | None = None


@dataclass(frozen=True)
class Study:
    """A paper's question, ready to run. See experiments/ for how one reads.

    paper: its arXiv id, or None where the question is our own. base: name of a config, or None where nothing is trained. settings: numbers the stages use; scales: scale -> overrides of
    settings (bare names) and of the base config (dotted names). rows: `(unit, metrics, runs) -> list of dicts`, None for the standard columns.
    notes: `frame of rows -> sentences` that stand before the report's verdicts.
    """

    paper: str | None
    title: str
    question: str
    base: str | None
    stages: tuple
    claims: tuple
    settings: Mapping
    scales: Mapping
    estimates: tuple = ()
    figures: tuple = ()
    laws: tuple = ()
    rows: Callable | None = None
    notes: Callable | None = None

    def __post_init__(self):
        keys = {}
        for figure in self.figures:
            if figure.key in keys:
                raise ValueError(f"figures {keys[figure.key]!r} and {figure.title!r} would share the file {figure.key}.svg; retitle one")
            keys[figure.key] = figure.title

    def at(self, scale, ablation=None, overrides=None):
        """The `State` in which this study starts at `scale`, optionally with a claim's mechanism taken out and config fields overridden."""
        if scale not in self.scales:
            raise ConfigError(f"--scale={scale}: not one of {', '.join(self.scales)}{records.suggest(scale, self.scales)}")
        settings, leaves = dict(self.settings), {}
        for source in (self.scales[scale], ablation or {}):
            for name, value in source.items():
                if "." in name:
                    leaves[name] = value
                elif name in settings:
                    settings[name] = value
                else:
                    raise ConfigError(
                        f"scale {scale!r}: {name!r} is neither a setting of this study ({', '.join(settings)}) nor a dotted config field"
                    )
        taken = frozenset(overrides or ()) | {name for name in ablation or () if "." in name}
        leaves |= overrides or {}
        if self.base is None and leaves:
            name, value = next(iter(leaves.items()))
            raise ConfigError(
                f"config.{name} = {value!r}: this study trains nothing, it has no config to override; leave it out, or edit the settings in its file ({', '.join(settings)})"
            )
        base = None if self.base is None else cfg.resolve(cfg.load(self.base), leaves)
        return State(base=base, settings=settings, results={}, taken=taken)


@dataclass(frozen=True)
class State:
    """What a stage may look at: the base config, the settings, and results of finished units on its own split.

    base: None in a study that trains nothing. taken: config fields that the command line (or an ablation) has set, which no
    stage may set again.
    """

    base: cfg.RunConfig | None
    settings: Mapping
    results: dict
    split: str = "test"
    taken: frozenset = frozenset()

    def __getitem__(self, setting):
        return self.settings[setting]

    def on(self, split):
        """This state as seen from the other side: a test stage may read what tuning found, never the reverse."""
        if split == "test" and self.split == "tune":
            raise SplitError("a tuning stage asked for the test split: hyper-parameters are chosen on tune, claims are measured on test")
        return replace(self, split=split)

    def seeds(self, count):
        """`count` seeds of this stage's side."""
        first = TUNING_SEED if self.split == "tune" else 0
        return range(first, first + count)

    def run(self, overrides, **labels):
        """A training unit: the base config with dotted `overrides`, evaluated on this stage's split."""
        if self.base is None:
            raise ValueError("a stage asks for a training run, and this study has base=None; name a base config in its Study(...)")
        overrides = {"train.evaluate": (self.split,), **overrides}
        if self.taken:
            _refuse_overruled(self.taken, overrides)
        unit = _unit(self.base, tuple(overrides.items()), tuple(sorted(labels.items())))
        self._refuse_seed(unit.config.seed)
        return unit

    def simulate(self, function, settings, seed, **labels):
        """A simulation unit, `function(settings, seed) -> metrics`; see `units.Simulation`."""
        unit = units_.simulate(function, settings, seed, **labels)
        self._refuse_seed(unit.config.seed)
        return unit

    def metrics(self, unit):
        """What a simulation unit of this stage's side gave, as a dict; None while it is not finished."""
        if unit.kind != "simulate":
            raise ValueError(f"unit {unit.identity} is of kind {unit.kind!r}: state.metrics is for simulations, state.loss for runs")
        self._refuse_seed(unit.config.seed)
        return self.results.get(unit.identity)

    def _refuse_seed(self, seed):
        if (seed >= TUNING_SEED) != (self.split == "tune"):
            raise SplitError(f"seed {seed} in a {self.split} stage: take seeds from state.seeds(count); tuning and claims never share one")

    def loss(self, unit):
        """The unit's loss on this stage's split in nats per token; None while it is not finished."""
        metrics = self.results.get(unit.identity)
        if metrics is None:
            return None
        key = f"{self.split}/loss"
        if key not in metrics:
            raise SplitError(f"unit {unit.identity} has no {key}: a {self.split} stage may only look at runs evaluated on {self.split}")
        return metrics[key]

    def team_losses(self, unit):
        """Losses of a score unit's teams in nats per token, in order; None while it is not finished."""
        if unit.config.split != self.split:
            raise SplitError(f"unit {unit.identity} is scored on {unit.config.split}: a {self.split} stage may only look at {self.split}")
        metrics = self.results.get(unit.identity)
        return None if metrics is None else metrics["losses"]


def _refuse_overruled(taken, overrides):
    """An override that a stage would overrule changes nothing, although the directory says it was given."""
    either = {"train.steps", "train.epochs"}  # one replaces the other
    for name in sorted(taken):
        if name in overrides or (name in either and either & set(overrides)):
            raise ConfigError(
                f"config.{name}: the stages of this study set it themselves, run by run; leave it out, or edit the study's settings"
            )


def grid(axes, seeds, **labels):
    """A one-stage study's stage: every combination of dotted field -> values, each with `seeds` seeds."""

    def expand(state):
        return [
            state.run({**dict(zip(axes, point, strict=True)), "seed": seed}, **labels)
            for point in itertools.product(*axes.values())
            for seed in state.seeds(seeds)
        ]

    return Stage("grid", expand)


def walk(study, state, execute, until=None):
    """Runs every stage to its end; `execute(stage, known, missing)` must put the missing units' metrics into state.results.

    known: identity -> unit, of everything asked for so far, this stage included.

    Returns:
      {stage name: units}, in order; stops after the stage named `until`.
    """
    names = [stage.name for stage in study.stages]
    if until is not None and until not in names:
        raise ConfigError(f"--until={until}: not a stage of this study; its stages are {', '.join(names)}{records.suggest(until, names)}")
    done, known = {}, {}
    for stage in study.stages:
        view = replace(state, split=stage.split)
        while True:
            wanted = {unit.identity: unit for unit in stage.expand(view)}
            known |= wanted
            missing = [unit for unit in wanted.values() if unit.identity not in state.results]
            if not missing:
                break
            execute(stage, known, missing)
            lost = [unit.identity for unit in missing if unit.identity not in state.results]
            if lost:
                raise RuntimeError(f"stage {stage.name}: {len(lost)} units gave no result, the first is {lost[0]}")
        done[stage.name] = stage.expand(view)
        if stage.name == until:
            break
    return done


def forecast(study, state, until=None, found=lambda identity: None):
    """The units a study asks for if no loss still to come beats another: known before anything runs; adaptive stages may add to it.

    found: identity -> metrics of a unit that is finished already, or None.
    """
    imagined = replace(state, results={})

    def pretend(stage, known, missing):
        imagined.results.update({unit.identity: found(unit.identity) or _flat(unit) for unit in missing})

    return walk(study, imagined, pretend, until)


def rows(study, state, done):
    """The rows claims are measured on: every unit of the test stages, as a pandas frame, and {run: cell}.

    A row may name the cell of its runs in a column `cell`; else a run's cell is that of its unit.
    """
    import pandas as pd

    tuning = {stage.name for stage in study.stages if stage.split == "tune"}
    make, out, cells = study.rows or standard_rows, [], {}
    runs = {unit.identity: unit for group in done.values() for unit in group if unit.kind in ("train", "simulate")}
    for name, group in done.items():
        for unit in group if name not in tuning else ():
            out += [{"stage": name, **row} for row in make(unit, state.results[unit.identity], runs)]
    for row in out:
        for run in row["runs"]:
            cell = row["cell"] if "cell" in row else runs[run.partition("/")[0]].cell
            if cells.setdefault(run, cell) != cell:
                raise ValueError(f"run {run} is in cell {cells[run]!r} and in cell {cell!r}: a run belongs to one cell")
    return pd.DataFrame(out), cells


def standard_rows(unit, metrics, runs):
    """One row per run, per team of an ensemble, or per simulation (see `simulations.rows`), with the columns every study shares.

    runs: identity -> unit of all training runs and simulations; the column `runs` holds those a row depends on.
    """
    if unit.kind == "simulate":
        return simulations.rows(unit, metrics)
    if unit.kind == "train":
        return [
            {
                **run_columns(unit.config),
                **unit.label,
                "members": 1,
                **_losses(unit.config, metrics["test/loss"]),
                "train_loss": metrics["train/loss"],
                "runs": (unit.identity,),
            }
        ]
    out = []
    for team, loss in zip(unit.config.teams, metrics["losses"], strict=True):
        ids = tuple(unit.parents[i] for i in team)
        config = runs[ids[0]].config
        columns = run_columns(config)
        columns = columns | {name: len(team) * columns[name] for name in ("params", "params_body", "params_embedding", "params_active")}
        columns |= {**unit.label, "seed": -1, "members": len(team), "team": team, **_losses(config, loss)}
        out.append({**columns, "train_loss": float("nan"), "runs": ids})
    return out


def _losses(run, loss):
    """The test loss in nats per token, and in bits per byte of text (nan where the tokens are no text)."""
    bits = stream.bits_per_byte(loss, open_corpus(run.data), "test")
    return {"loss": loss, "bits_per_byte": float("nan") if bits is None else bits}


@functools.lru_cache(maxsize=4096)
def run_columns(run):
    """The columns a bound run's config says; params counts all parameters."""
    count = cfg.component(run.model.name, cfg.MODELS).parameters(run.model)
    seen = run.train.steps * run.data.batch * run.data.sequence
    columns = {name: getattr(run.model, name) for name in ("width", "layers") if hasattr(run.model, name)}
    columns |= {"params": count.total, "params_body": count.body, "params_embedding": count.embedding, "params_active": count.active}
    columns |= {
        "tokens": min(seen, stream.unique_sequences(open_corpus(run.data), run.data) * run.data.sequence),
        "tokens_seen": seen,
        "steps": run.train.steps,
        "epochs": run.train.epochs,
        "seed": run.seed,
    }
    return columns | {name: getattr(run.optimizer, name) for name in ("learning_rate", "weight_decay") if hasattr(run.optimizer, name)}


@functools.lru_cache(maxsize=65536)
def _unit(base, overrides, labels):
    return units_.train(base.replace(**dict(overrides)), **dict(labels))


def _flat(unit):
    if unit.kind == "simulate":
        return simulations.Imagined()
    if unit.kind == "score":
        return {"losses": [UNKNOWN] * len(unit.config.teams)}
    return {"train/loss": UNKNOWN, **{f"{split}/loss": UNKNOWN for split in unit.config.train.evaluate}}
