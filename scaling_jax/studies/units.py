"""Units of work: what a stage asks for, named by what they are.

A unit's identity hashes its kind, its result-changing config and its parents. Labels (recipe, ...) are for
people and claims: the same run may carry different labels in different stages and is still trained once.
"""

import dataclasses
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
class Unit:
    """One content-addressed piece of work.

    kind: "train" (config: a bound RunConfig) or "score" (config: EnsembleConfig; parents: identities of runs).
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
