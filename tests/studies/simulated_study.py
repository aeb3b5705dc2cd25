"""A study for the tests that trains nothing: the largest of n exponential times, simulated, beside runs read from a table."""

import math
from dataclasses import dataclass

import numpy as np

from scaling_jax.records import field
from scaling_jax.studies.claims import Claim, permute
from scaling_jax.studies.study import Stage, Study

TABLE = (1.75, 1.5, 2.25, 2.0, 1.875)  # stands for a published one


@dataclass(frozen=True)
class Largest:
    """Mean over `draws` of the largest of n exponential times of mean `scale`; its expectation is scale (1 + 1/2 + ... + 1/n)."""

    n: int = field(4, at_least=1)
    draws: int = field(50, at_least=1)
    scale: float = field(1.0, above=0.0)


def largest(settings, seed):
    times = settings.scale * np.random.default_rng(seed).exponential(size=(settings.draws, settings.n)).max(1)
    return {
        "time": float(times.mean()),
        "first": [float(t) for t in times[:3]],
        "spread": math.nan if len(times) < 2 else float(times.std()),
    }


@dataclass(frozen=True)
class Published:
    """What is read from a table."""

    factor: float = field(1.0)


def published(settings, seed):
    return {
        "source": "a table",
        "rows": [{"run": f"run {i}", "cell": "published", "time": settings.factor * t} for i, t in enumerate(TABLE)],
    }


def trial(state, n, seed, **labels):
    return state.simulate(largest, Largest(n=n, draws=state["draws"], scale=state["scale"]), seed, **labels)


def tune(state):
    return [trial(state, n, seed) for n in state["sizes"] for seed in state.seeds(2)]


def chosen(state):
    """The size whose largest time is longest on tune."""
    state = state.on("tune")
    times = {n: [state.metrics(trial(state, n, seed)) for seed in state.seeds(2)] for n in state["sizes"]}
    return max(times, key=lambda n: sum(m["time"] for m in times[n]))


def judge(state):
    units = [trial(state, n, seed, group=group) for group, n in (("one", 1), ("chosen", chosen(state))) for seed in state.seeds(4)]
    return [*units, state.simulate(published, Published(), 0, group="published")]


def gain(data):
    return data.where(group="chosen").mean("time") - data.where(group="one").mean("time")


STUDY = Study(
    paper="2211.13802",
    title="A simulated study for the tests",
    question="How long is the longest of some times?",
    base=None,
    settings={"draws": 50, "scale": 1.0, "sizes": (2, 8, 4)},
    stages=(Stage("tune", tune, split="tune"), Stage("judge", judge)),
    claims=tuple(
        Claim(
            f"the largest of many is later by more than {margin}",
            gain,
            margin,
            ">",
            permute("group", where={"group": ("one", "chosen")}),
            {"sizes": (1,)},
        )
        for margin in (0.0, 0.1, 5.0)
    ),
    scales={"smoke": {}},
)
