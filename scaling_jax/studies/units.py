"""Units of work: what a stage asks for, named by what they are.

A unit's identity hashes its kind, its result-changing config and its parents. Labels (recipe, ...) are for
people and claims: the same run may carry different labels in different stages and is still trained once.
"""

import dataclasses
import numbers
from collections.abc import Callable
from dataclasses import dataclass

from scaling_jax import config as cfg
from scaling_jax import records
from scaling_jax.data.corpus import open_corpus
from scaling_jax.records import field

SCHEMA = 1


@dataclass(frozen=True)
class EnsembleConfig:
    """Scoring of teams out of the parents' final weights."""

    average: str = field("logits", choices=("logits", "probabilities", "losses"))
    split: str = field("test", choices=("tune", "test"))
    teams: tuple[tuple[int, ...], ...] = field((), doc="each team: indices into the parents")


@dataclass(frozen=True)
class Simulation:
    """One simulation, `function(settings, seed) -> metrics`, which must depend on nothing but these two.

    function: of a module, known by its name; settings: a frozen record declared with `records.field`.
    metrics: name -> float (nan where there is none), int, bool, text, or lists and dicts of those.
    """

    function: Callable
    settings: object
    seed: int


@dataclass(frozen=True)
class Unit:
    """One content-addressed piece of work.

    kind: "train" (config: a bound RunConfig), "score" (config: EnsembleConfig; parents: identities of runs) or "simulate"
    (config: Simulation).
    labels: sorted (name, value) pairs, never hashed. cell: runs that differ only in seed share it.
    """

    kind: str
    config: object
    identity: str
    cell: str
    parents: tuple[str, ...] = ()
    labels: tuple[tuple[str, object], ...] = ()

    @property
    def label(self):
        """Labels as a dict."""
        return dict(self.labels)


def train(run, **labels):
    """A training unit of the RunConfig `run`, bound to its corpus."""
    corpus = open_corpus(run.data)
    run = cfg.bind(run, corpus)
    cell = cfg.identity(dataclasses.replace(run, seed=0), corpus)
    return Unit("train", run, cfg.identity(run, corpus), cell, labels=tuple(sorted(labels.items())))


def score(config, parents, **labels):
    """A scoring unit over the final weights of `parents`: train units of one model, which one program predicts with."""
    if len({unit.config.model for unit in parents}) != 1:
        raise ValueError("parents: their models differ, and one program predicts with all of them; score each model's runs by themselves")
    ids = tuple(unit.identity for unit in parents)
    identity = records.digest({"kind": "score", "schema": SCHEMA, "config": records.canonical(config), "parents": list(ids)})
    return Unit("score", config, identity, identity, ids, tuple(sorted(labels.items())))


def simulate(function, settings, seed, **labels):
    """A simulation unit: `function(settings, seed)`. Its cell is the same function and settings under any seed.

    Raises:
      ValueError: a function that has no name of its own in a module, settings that are no frozen record, a seed that is no integer.
      ConfigError: a setting of the wrong type or out of its range.
    """
    name = getattr(function, "__qualname__", "")
    if not callable(function) or not name or "<" in name:
        raise ValueError(f"function = {function!r}: a simulation is known by the name of a function defined in a module, at its top level")
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type) or not settings.__dataclass_params__.frozen:
        raise ValueError(f"{name}: settings = {settings!r}: expected a frozen dataclass whose fields are declared with records.field")
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"{name}: seed = {seed!r}: expected an integer from 0; take seeds from state.seeds(count)")
    fields = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    config = Simulation(function, records.build(type(settings), fields, f"{name}.settings"), int(seed))
    what = {"kind": "simulate", "schema": SCHEMA, "function": name, "record": type(settings).__name__}
    what |= {"settings": records.canonical(config.settings)}
    identity, cell = records.digest(what | {"seed": config.seed}), records.digest(what)
    return Unit("simulate", config, identity, cell, labels=tuple(sorted(labels.items())))
