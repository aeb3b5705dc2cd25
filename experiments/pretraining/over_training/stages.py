"""Over-training, what is run: cheap runs the law is fitted to, held-out runs it has to predict, and the published runs as rows.

A cell is (size, M): a size trained on M tokens per parameter, once through. M of `base` counts as not over-trained.
"""

import dataclasses
import functools
import math

from scaling_jax import config as cfg
from scaling_jax.data.corpus import open_corpus
from scaling_jax.studies import tuning
from scaling_jax.studies.study import Stage, standard_rows

from . import published

SHIFT = 1000  # seeds between values of M, where the ablation gives all of them the same tokens and yet wants runs of their own


def parameters(state, size):
    """All parameters of a size, embeddings included, as the paper counts them."""
    return _parameters(state.base.replace(**_config(state, size)))


@functools.lru_cache(maxsize=64)
def _parameters(run):
    model = dataclasses.replace(run.model, vocab=open_corpus(run.data).vocab)
    return cfg.component(model.name, cfg.MODELS).parameters(model).total


def _config(state, size):
    return {name: value for name, value in state["sizes"][size].items() if "." in name}


def run(state, cell, seed, rate=None, **labels):
    """The unit that trains `cell` = (size, M); labelled by both and by its rung: cells of one rung cost about the same compute."""
    size, multiplier = cell
    sizes, config = state["sizes"], _config(state, size)
    count = parameters(state, size)
    tokens = count * (multiplier if state["over_train"] else state["base"])
    if not state["over_train"]:
        seed += SHIFT * sorted({m for _, m in (*state["cheap"], *state["held_out"])}).index(multiplier)
    data = state.base.replace(**config).data
    steps = max(1, round(tokens / (data.batch * data.sequence)))
    overrides = {"train.steps": steps, "seed": seed, **({"optimizer.learning_rate": rate} if rate else {}), **config}
    if "warmup" in sizes[size]:
        overrides["schedule.warmup"] = min(1.0, sizes[size]["warmup"] / steps)
    first = min(parameters(state, one) for one in sizes)
    rung = round(math.log2((count / first) ** 2 * multiplier / state["base"]))
    return state.run(overrides, size=size, multiplier=multiplier, rung=rung, **labels)


def tried(state, cell, rate):
    """Runs of `cell` that try a learning rate on the tune split."""
    return [run(state, cell, seed, rate) for seed in state.seeds(state["tuning_seeds"])]


def tune(state):
    """Every cell to be tuned at every learning rate; nothing where the config's own rates are taken as they are.

    A rate is tuned for each M: the best one falls as runs get longer, and a rate tuned at M = 20 would make over-training look worse than it is.
    """
    return [unit for cell in state["tuned"] for rate in state["rates"] for unit in tried(state, cell, rate)]


def tuned_rate(state, cell):
    """The rate that was best on tune, and whether it is the first or last tried.

    A cell that was not tuned takes the rate of the largest size that was at its M.
    """
    if not state["tuned"]:
        return None, ""
    alike = [one for one in state["tuned"] if one[1] == cell[1]] or list(state["tuned"])
    state, tuned = state.on("tune"), cell if cell in alike else alike[-1]
    found = {rate: [state.loss(unit) for unit in tried(state, tuned, rate)] for rate in state["rates"]}
    found = {rate: math.inf if None in losses else tuning.mean(losses) for rate, losses in found.items()}
    best = min(found, key=found.get)
    return best, "learning rate" if len(found) > 1 and best in (min(found), max(found)) else ""


def cells(setting, use):
    """A stage that trains every cell of a setting with fresh seeds."""

    def expand(state):
        out = []
        for cell in state[setting]:
            rate, edge = tuned_rate(state, cell)
            out += [run(state, cell, seed, rate, use=use, edge=edge) for seed in state.seeds(state[f"{setting}_seeds"])]
        return out

    return Stage(setting, expand)


def paper(state):
    """The published runs: one simulation that reads and fits them."""
    return [state.simulate(published.read_and_fit, published.Published(state["labels"], state["tasks"]), 0)]


def rows(unit, metrics, runs):
    """The standard columns; of a training run D is what it saw, and compute is 6 N D."""
    out = standard_rows(unit, metrics, runs)
    if unit.kind == "train":
        out = [{**row, "tokens": row["tokens_seen"], "compute": 6 * row["params"] * row["tokens_seen"]} for row in out]
    return [{"train_set": "", "edge": "", "epochs": 1.0, "over_trained": 0, "error_held_out": 0, "error": math.nan, **row} for row in out]


def notes(frame):
    """What a reader should know first: the words, what the intervals mean, rates at the edge of their grid, tokens seen twice."""
    out = [
        "Words: N is the number of all parameters, D of training tokens, M = D / N, C = 6 N D. Held out are runs that cost more than every "
        "run a law was fitted to (published runs), or that are larger, over-trained or both (our own).",
        "Intervals about published runs say how held-out runs differ, given the five runs the law was fitted to: leaving one of five out "
        "leaves no degree of freedom.",
    ]
    if len(paper := frame[frame["stage"] == "published"]):
        losses, errors, chance = published.common_part(paper)
        out.append(
            f"Published runs of one size err together, whatever M and training set: {losses:.0%} of the variance of the signed errors of "
            f"predicted losses lies between the sizes held out, and {errors:.0%} of that of task errors; independent runs would give {chance:.0%}. "
            "So a size counts as one run, here and wherever a reason speaks of seeds: intervals leave one size out at a time, and chance moves "
            "all training sets at once. More seeds of these sizes settle nothing that is undecided; more sizes would. Which of two predictors "
            "is better can be told only where they differ: at five sizes or fewer no p lies below 1/32."
        )
    edges = sorted({f"size {r.size} at M = {r.multiplier}" for r in frame.itertuples() if r.edge})
    if edges:
        out.append(f"Learning rate at the edge of its grid, beyond which there may be a better one: {'; '.join(edges)}.")
    repeated = frame[frame["epochs"] > 1.0]
    if len(repeated):
        out.append(
            f"{len(repeated)} runs saw their tokens up to {repeated['epochs'].max():.3g} times: repeated tokens are no over-training in the paper's sense."
        )
    return out
