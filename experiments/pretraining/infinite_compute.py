"""Pre-training under infinite compute (arXiv:2509.14786).

With a fixed amount of data and no limit on compute: how far do epochs, weight decay, size and ensembles go?
At `tiny` the data are 16k bytes of the Python standard library's own sources and N runs from 14k to 133k.
"""

from scaling_jax.inference.ensemble import all_teams
from scaling_jax.laws import forms
from scaling_jax.studies import tuning
from scaling_jax.studies.claims import Claim, permute
from scaling_jax.studies.figures import curves, trajectories
from scaling_jax.studies.study import Stage, Study, standard_rows
from scaling_jax.studies.units import EnsembleConfig, score

USUAL = 0.1  # the weight decay of standard practice


# --- points: one training run of this study ------------------------------------------------------------------


def run(state, size, point, seed, tokens=None, **labels):
    """The unit that trains `size` at `point` (epochs, decay, rate) on `tokens` unique tokens; labelled by size and recipe."""
    tokens = tokens or state["tokens"]
    epochs = point["epochs"]
    if not state["repeat"]:  # ablation: as many steps, on fresh tokens
        tokens, epochs = int(tokens * epochs), 1
    overrides = {
        **state["sizes"][size],
        "data.unique_tokens": tokens,
        "train.epochs": float(epochs),
        "optimizer.weight_decay": point["decay"],
        "optimizer.learning_rate": point["rate"],
        "seed": seed,
    }
    return state.run(overrides, size=size, **labels)


def descent(state, size, recipe, tokens=None):
    """Coordinate descent of one size and recipe over (epochs, decay, rate) on the tune split."""
    state = state.on("tune")
    axes = {"epochs": state["epochs"], "decay": (USUAL,) if recipe == "standard" else state["decays"], "rate": state["rates"]}
    known = lambda point: [state.loss(run(state, size, point, seed, tokens)) for seed in state.seeds(state["tuning_seeds"])]
    losses = lambda point: None if None in known(point) else known(point)
    published = state["tuned"].get((recipe, size))
    if published:  # at `pod` the paper's own points are taken as they are
        return tuning.Descent(dict(published), (), True, (), ())
    start = {**state["start"][recipe], "rate": state["rates"][len(state["rates"]) // 2]}
    noise = tuning.seed_noise([losses(p) for p in tuning.descend(axes, start, losses).visited if losses(p)])
    return tuning.descend(axes, start, losses, noise)


def tuned(state, size, recipe, tokens=None):
    """The point a finished descent settled on, and its flags, as labels."""
    found = descent(state, size, recipe, tokens)
    return found.point, {"edge": ",".join(found.edges)}


def heavier(state, point):
    """A member's point past its own optimum: twice the epochs, half the decay."""
    more, less = state["heavier"]
    return {**point, "epochs": point["epochs"] * more, "decay": point["decay"] * less}


# --- stages --------------------------------------------------------------------------------------------------


def tune(recipe):
    """Tunes every size of `recipe` at the main budget."""

    def expand(state):
        found = {size: descent(state, size, recipe) for size in state["sizes"]}
        return [run(state, size, p, seed, recipe=recipe) for size, d in found.items() for p in d.visited for seed in state.seeds(state["tuning_seeds"])]

    return Stage(f"tune_{recipe}", expand, split="tune")


def sizes(state):
    """Every size at its tuned point, both recipes, fresh seeds."""
    out = []
    for recipe in ("standard", "regularized"):
        for size in state["sizes"]:
            point, flags = tuned(state, size, recipe)
            out += [run(state, size, point, seed, recipe=recipe, **flags) for seed in state.seeds(state["seeds"])]
    return out


def decays(state):
    """The largest size at its tuned epochs, over all decays, fresh seeds."""
    size = list(state["sizes"])[-1]
    point, _ = tuned(state, size, "regularized")
    return [run(state, size, {**point, "decay": decay}, seed, recipe="decay sweep") for decay in state["sweep"] for seed in state.seeds(state["seeds"])]


def ensembles(state):
    """Teams of one size: tuned members, members past their own optimum, and mixed teams of four for the null."""
    size, count = state["ensemble_size"], state["members"]
    point, _ = tuned(state, size, "regularized")
    usual = [run(state, size, point, seed, recipe="member") for seed in state.seeds(count)]
    heavy = [run(state, size, heavier(state, point), seed, recipe="heavy member") for seed in state.seeds(count)]
    teams = all_teams(count, most=state["teams"])
    mixed = [tuple(slot + count * (mix >> i & 1) for i, slot in enumerate(team)) for team in cyclic(count) for mix in range(1, 15)]
    every = [*teams, *[tuple(i + count for i in team) for team in teams], *mixed]
    averages = (state["average"],) if state["average"] == "losses" else (state["average"], "probabilities")
    scored = [score(EnsembleConfig(average, teams=tuple(every)), [*usual, *heavy], size=size, average=average) for average in averages]
    return [*usual, *heavy, *scored]


def cyclic(count):
    """Teams of four in which every slot appears equally often: {i, i+1, i+2, i+4} modulo count."""
    return [tuple((i + step) % count for step in (0, 1, 2, 4)) for i in range(count)] if count >= 5 else []
