"""Planted worlds: a whole study on losses we made up, to measure how often the laboratory itself is wrong.

Everything but the training is real: tuning asks for points and settles on one, claims are judged on fresh seeds of the other
split. In a null world no claim is true, so every `holds` is an error; in a true world every other verdict is lost power.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from scaling_jax.studies import claims as claims_
from scaling_jax.studies import study as studies
from scaling_jax.studies.rows import Data


@dataclass(frozen=True)
class World:
    """What is true: `loss(run) -> nats per token` of a bound RunConfig, plus normal noise over seeds; and of a team.

    team: (members' losses as measured [K], their configs) -> the team's loss; None: their mean.
    simulate: (Simulation, rng) -> metrics of a simulation unit; None: the simulation itself runs.
    noise: standard deviation over seeds, tune and test of one run sharing a part of it.
    """

    loss: Callable | None
    team: Callable | None = None
    simulate: Callable | None = None
    noise: float = 0.02
    shared: float = 0.7


def live(study, scale, world, seed, until=None, permutations=1000, overrides=None):
    """The verdicts of `study` at `scale`, with config `overrides`, in one draw of `world`."""
    state = study.at(scale, overrides=overrides)
    state = replace(state, results={})

    def execute(stage, known, missing):
        for unit in missing:
            if unit.kind == "simulate":
                state.results[unit.identity] = _simulate(world, unit, seed)
            else:
                state.results[unit.identity] = _train(world, unit, seed) if unit.kind == "train" else _score(world, unit, known, state)

    done = studies.walk(study, state, execute, until)
    frame, cells = studies.rows(study, state, done)
    return claims_.judge(study.claims, Data(frame, cells), permutations=permutations, seed=seed)


def _train(world, unit, seed):
    rng = np.random.default_rng([seed, zlib.crc32(unit.identity.encode())])
    own, *rest = rng.standard_normal(1 + 3)
    truth, common = world.loss(unit.config), world.shared**0.5 * own
    noise = dict(zip(("train", "tune", "test"), world.noise * (common + (1 - world.shared) ** 0.5 * np.array(rest)), strict=True))
    metrics = {f"{split}/loss": float(truth + noise[split]) for split in ("train", *unit.config.train.evaluate)}
    if every := unit.config.train.evaluate_every:
        metrics["evaluations"] = _evaluations(world, unit.config, every, noise)
    return metrics


def _evaluations(world, run, every, noise):
    """The trajectory of a planted run: at step s the loss of the run that ends there, with this run's noise."""
    steps = sorted({*range(every, run.train.steps + 1, every), run.train.steps})
    truths = [world.loss(replace(run, train=replace(run.train, steps=step))) for step in steps]
    return {"step": steps} | {f"{split}/loss": [float(truth + noise[split]) for truth in truths] for split in run.train.evaluate}


def _simulate(world, unit, seed):
    if world.simulate is None:
        return unit.config.function(unit.config.settings, unit.config.seed)
    return world.simulate(unit.config, np.random.default_rng([seed, zlib.crc32(unit.identity.encode())]))


def _score(world, unit, known, state):
    key = f"{unit.config.split}/loss"
    losses = []
    for team in unit.config.teams:
        members = [unit.parents[i] for i in team]
        own = np.array([state.results[m][key] for m in members])
        losses.append(float(own.mean() if world.team is None else world.team(own, [known[m].config for m in members])))
    return {"losses": losses}
