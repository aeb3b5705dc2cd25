"""A study for the tests: an adaptive stage (a descent over learning rates) and a dependent one (teams of what it chose)."""

from scaling_jax.inference.ensemble import all_teams
from scaling_jax.studies import tuning
from scaling_jax.studies.claims import Claim, permute
from scaling_jax.studies.study import Stage, Study
from scaling_jax.studies.units import EnsembleConfig, score

RATES = (0.003, 0.01, 0.03)


def run(state, point, seed, **labels):
    return state.run({"optimizer.learning_rate": point["rate"], "seed": seed}, **labels)


def descent(state):
    state = state.on("tune")
    loss = lambda point: state.loss(run(state, point, state.seeds(1)[0]))
    return tuning.descend({"rate": RATES}, {"rate": RATES[-1]}, lambda point: None if loss(point) is None else [loss(point)])


def tune(state):
    return [run(state, point, state.seeds(1)[0]) for point in descent(state).visited]


def teams(state):
    members = [run(state, descent(state).point, seed, recipe="member") for seed in state.seeds(3)]
    return [*members, score(EnsembleConfig(teams=tuple(all_teams(3))), members, recipe="team")]


def gain(data):
    return data.where(recipe="member").mean() - data.where(recipe="team", members=2).mean()


STUDY = Study(
    paper="2509.14786",
    title="A study for the tests",
    question="Do two models beat one?",
    base="tiny",
    settings={},
    stages=(Stage("tune", tune, split="tune"), Stage("teams", teams)),
    claims=tuple(
        Claim(
            f"two models beat one by more than {margin}", gain, margin, ">", permute("members", where={"recipe": "team"}), {"data.batch": 8}
        )
        for margin in (0.0, 0.1, 5.0)
    ),
    scales={
        "smoke": {
            "model.width": 8,
            "model.layers": 1,
            "data.source": "markov",
            "data.vocab": 16,
            "data.sequence": 8,
            "data.batch": 4,
            "data.unique_tokens": 256,
            "data.eval_sequences": 16,
            "data.synthetic.tokens": 4000,
            "data.synthetic.held_out": 1000,
            "train.steps": 60,
            "train.checkpoint_every": 10,
            "train.log_every": 5,
        }
    },
)
