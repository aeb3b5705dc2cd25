"""Infinite compute, what is run: points, tuning, and the stages built on them. A point is {epochs, decay, rate}."""

import functools
import math
from pathlib import Path

from scaling_jax.data import stream
from scaling_jax.data.corpus import open_corpus
from scaling_jax.inference.ensemble import all_teams
from scaling_jax.laws import tables
from scaling_jax.laws.form import NotTestable
from scaling_jax.studies import tuning
from scaling_jax.studies.study import Stage, standard_rows
from scaling_jax.studies.units import EnsembleConfig, score

from . import statistics
from .statistics import USUAL

RECIPES = ("standard", "regularized")  # epochs tuned at the usual decay; epochs and decay tuned


def run(state, size, point, seed, tokens=None, **labels):
    """The unit that trains `size` at `point` (epochs, decay, rate) on `tokens` unique tokens; labelled by size and recipe."""
    tokens = tokens or state["tokens"]
    epochs = point["epochs"]
    if not state["repeat"]:  # ablation: as many steps, on fresh tokens, as far as there are any
        seen, tokens = tokens * epochs, min(tokens * epochs, available(state))
        epochs = seen / tokens
    overrides = {
        **state["sizes"][size],
        "data.unique_tokens": tokens,
        "train.epochs": float(epochs),
        "optimizer.weight_decay": point["decay"],
        "optimizer.learning_rate": point["rate"],
        "seed": seed,
    }
    return state.run(overrides, size=size, **labels)


def available(state):
    """Tokens of the train split, in whole windows."""
    data = state.base.replace(**{"data.unique_tokens": None}).data
    return stream.unique_sequences(open_corpus(data), data) * data.sequence


def descent(state, size, recipe, tokens=None):
    """Coordinate descent of one size and recipe over (epochs, decay, rate) on the tune split."""
    state, tokens = state.on("tune"), tokens or state["tokens"]
    axes = {"epochs": state["epochs"], "decay": (USUAL,) if recipe == "standard" else state["decays"], "rate": state["rates"]}
    known = lambda point: [state.loss(run(state, size, point, seed, tokens)) for seed in state.seeds(state["tuning_seeds"])]
    losses = lambda point: None if None in known(point) else known(point)
    if state["published"]:  # at `pod` the paper's own points are taken as they are, and run on tune to compare sizes there
        point = published()[recipe, size, tokens]
        return tuning.Descent(point, (), True, (), (point,))
    start = {axis: tuning.nearest(values, state["start"][recipe].get(axis)) for axis, values in axes.items()}
    noise = tuning.seed_noise([losses(p) for p in tuning.descend(axes, start, losses).visited if losses(p)])
    return tuning.descend(axes, start, losses, noise)


@functools.cache
def published():
    """(recipe, size, tokens) -> the point the paper's authors settled on."""
    path = Path(__file__).resolve().parents[2] / "published" / "infinite_compute_tuned.csv"
    rows = tables.read_points(path, needed=("tokens", "epochs", "decay", "rate")).to_dict("records")
    return {(r["recipe"], r["size"], int(r["tokens"])): {"epochs": int(r["epochs"]), "decay": r["decay"], "rate": r["rate"]} for r in rows}


def tuned(state, size, recipe, tokens=None):
    """The point a finished descent settled on; as labels, its mean loss on the tune split and the axes on whose edge it lies."""
    found, view = descent(state, size, recipe, tokens), state.on("tune")
    losses = [view.loss(run(view, size, found.point, seed, tokens)) for seed in view.seeds(state["tuning_seeds"])]
    return found.point, {"edge": ",".join(found.edges), "tune_loss": tuning.mean(losses)}


def heavier(state, point):
    """A member's point past its own optimum: twice the epochs, half the decay."""
    more, less = state["heavier"]
    return {**point, "epochs": point["epochs"] * more, "decay": point["decay"] * less}


def tune(recipe):
    """Tunes every size of `recipe` at the main budget."""
    return Stage(f"tune_{recipe}", lambda state: _tuning(state, recipe, state["sizes"], (state["tokens"],)), split="tune")


def tune_budgets(state):
    """Tunes the standard recipe at the other budgets."""
    return _tuning(state, "standard", state["budget_sizes"], state["budgets"])


def _tuning(state, recipe, sizes, budgets):
    units = []
    for tokens in budgets:
        for size in sizes:
            for point in descent(state, size, recipe, tokens).visited:
                units += [run(state, size, point, seed, tokens, recipe=recipe) for seed in state.seeds(state["tuning_seeds"])]
    return units


def sizes(state):
    """Every size at its tuned point, both recipes, fresh seeds."""
    out, names = [], list(state["sizes"])
    for recipe in RECIPES:
        for size in state["sizes"]:
            point, flags = tuned(state, size, recipe)
            flags = flags | {"extreme": int(size in (names[0], names[-1]))}
            out += [run(state, size, point, seed, recipe=recipe, **flags) for seed in state.seeds(state["seeds"])]
    return out


def decays(state):
    """Two sizes at their tuned epochs, over all decays, fresh seeds."""
    out = []
    for size in state["sweep_sizes"]:
        point, _ = tuned(state, size, "regularized")
        out += [
            run(state, size, {**point, "decay": decay}, seed, recipe="decay sweep", tuned_decay=point["decay"])
            for decay in state["sweep"]
            for seed in state.seeds(state["seeds"])
        ]
    return out


def tune_members(state):
    """Which members make the better team: tuned ones, or ones past their own optimum; settled on the tune split, at `pod` by the paper."""
    if state["published"]:
        return []
    usual, heavy = (members(state, state["ensemble_size"], recipe, state["tuning_seeds"]) for recipe in ("tuned", "heavy"))
    return [*usual, *heavy, _contest(state, usual, heavy)]


def members(state, size, recipe, count):
    """`count` runs of a size, "tuned" alone or "heavy": past their own optimum."""
    point = descent(state, size, "regularized").point
    point = heavier(state, point) if recipe == "heavy" else point
    return [run(state, size, point, seed, recipe=f"{recipe} member") for seed in state.seeds(count)]


def better_members(state):
    """The recipe whose team won on the tune split; at `pod` the paper's."""
    if state["published"]:
        return "heavy"
    state = state.on("tune")
    usual, heavy = (members(state, state["ensemble_size"], recipe, state["tuning_seeds"]) for recipe in ("tuned", "heavy"))
    losses = state.team_losses(_contest(state, usual, heavy))
    return "heavy" if losses[1] < losses[0] else "tuned"


def _contest(state, usual, heavy):
    count = len(usual)
    return score(EnsembleConfig(state["average"], "tune", (tuple(range(count)), tuple(range(count, 2 * count)))), [*usual, *heavy])


def ensembles(state):
    """Teams of one size: tuned members, members past their own optimum, and mixed teams of four for the null."""
    size, count = state["ensemble_size"], state["members"]
    usual, heavy = (members(state, size, recipe, count) for recipe in ("tuned", "heavy"))
    pure = [*all_teams(count, most=state["teams"]), *cyclic(count)]
    mixed = [tuple(slot + count * (mix >> i & 1) for i, slot in enumerate(team)) for team in cyclic(count) for mix in range(1, 15)]
    every = dict.fromkeys([*pure, *[tuple(slot + count for slot in team) for team in pure], *mixed])
    rows = dict.fromkeys(tuple(range(first, first + k)) for first in (0, count) for k in range(1, count + 1))
    labels = {"size": size, "better": f"{better_members(state)} team"}
    return [
        *usual,
        *heavy,
        score(EnsembleConfig(state["average"], teams=tuple(every)), [*usual, *heavy], average="as claimed", **labels),
        score(EnsembleConfig("probabilities", teams=tuple(rows)), [*usual, *heavy], average="probabilities", **labels),
    ]


def cyclic(count):
    """Teams of four in which every slot appears equally often: {i, i+1, i+2, i+4} modulo count."""
    return [tuple(sorted((i + step) % count for step in (0, 1, 2, 4))) for i in range(count)] if count >= 5 else []


def budgets(state):
    """The standard recipe, tuned, at the other budgets."""
    out = []
    for tokens in state["budgets"]:
        for size in state["budget_sizes"]:
            point, flags = tuned(state, size, "standard", tokens)
            out += [run(state, size, point, seed, tokens, recipe="standard", **flags) for seed in state.seeds(state["seeds"])]
    return out


def joint(state):
    """Teams at every size, of the members that won the contest: the limit in K, then in N."""
    out, count, recipe = [], state["joint_members"], better_members(state)
    for size in state["sizes"]:
        team = members(state, size, recipe, count)
        out += [
            *team,
            score(
                EnsembleConfig(state["average"], teams=tuple(all_teams(count))), team, size=size, average="as claimed", recipe="joint team"
            ),
        ]
    return out


def notes(frame):
    """What a reader should know first: the words, points tuned to the edge of their grid, a double limit that fits badly."""
    out = [
        "Words: the standard recipe tunes epochs at weight decay 0.1, the regularized one tunes epochs and decay; a heavy member is trained "
        "for twice the epochs at half the decay that are best for a model alone; N is the number of parameters, K of members in a team."
    ]
    edges = sorted({f"{r.recipe} size {r.size} ({r.edge})" for r in frame.itertuples() if r.edge})
    if edges:
        out.append(f"Tuned to the edge of a grid, beyond which there may be something better: {'; '.join(edges)}.")
    teams = frame[frame["recipe"] == "joint team"]
    if len(teams):
        try:
            warnings = statistics.joint_law(teams).warnings
        except NotTestable as error:
            warnings = (str(error),)
        out += [f"Law of the joint limit: {warning}." for warning in warnings]
    return out


def rows(unit, metrics, runs):
    """The standard columns; of a team also its slots (seeds) and which of them hold heavy members, as bit masks."""
    out = standard_rows(unit, metrics, runs)
    if unit.kind == "score" and "recipe" not in unit.label:
        count = len(unit.parents) // 2
        for row in out:
            row["slots"] = sum(1 << i % count for i in row["team"])
            row["heavy"] = sum(1 << i - count for i in row["team"] if i >= count)
            row["recipe"] = {0: "tuned team", row["slots"]: "heavy team"}.get(row["heavy"], "mixed team")
            row["best_team"] = int(row["recipe"] == row.pop("better") and row["average"] == "as claimed")
    return [
        {
            "slots": 0,
            "heavy": 0,
            "best_team": 0,
            "tune_loss": math.nan,
            "tuned_decay": math.nan,
            "edge": "",
            "extreme": 0,
            "average": "",
            **row,
        }
        for row in out
    ]
