"""Trajectory law, what is run: sizes and batch sizes at a constant learning rate, which is tuned per batch size and per size."""

import functools
import math

import numpy as np

from scaling_jax import config as cfg
from scaling_jax.data import stream, synthetic
from scaling_jax.data.corpus import open_corpus
from scaling_jax.laws import derived
from scaling_jax.laws.form import NotTestable
from scaling_jax.studies import tuning
from scaling_jax.studies.study import run_columns

TEXT, KNOWN = "text", "known entropy"  # the two settings
APART = 1_000  # between seeds of cells that an ablation trains alike: their runs would be the same ones


def shapes(state, setting):
    """Size -> overrides of the model, of the fitted sizes and the one held out, smallest first."""
    return {**state["sizes"], **state["held_size"]} if setting == TEXT else {**state["known_sizes"], **state["known_held"]}


def plan(state, setting):
    """Windows per step -> steps of a run."""
    return state["steps"] if setting == TEXT else state["known_steps"]


def trained(state, size, batch, setting):
    """The size and batch size that a cell is really trained with: its own, but for an ablation, which takes the middle one for all."""
    every, batches = list(shapes(state, setting)), list(plan(state, setting))
    return every[len(every) // 2] if state["same_size"] else size, batches[len(batches) // 2] if state["same_batch"] else batch


def run(state, size, batch, rate, seed, setting=TEXT, **labels):
    """The unit that trains `size` with `batch` windows per step at the constant learning rate `rate`, evaluated along the way."""
    shape, steps = shapes(state, setting), plan(state, setting)
    real_size, real_batch = trained(state, size, batch, setting)
    if state["same_size"] or state["same_batch"]:
        seed += APART * (list(shape).index(size) * len(steps) + list(steps).index(batch))
    overrides = {
        **(dict(state["known"]) if setting == KNOWN else {}),
        **shape[real_size],
        "data.batch": real_batch,
        "train.steps": steps[batch],
        "train.evaluate_every": max(1, steps[batch] // state["evaluations"]),
        "optimizer.learning_rate": rate,
        "seed": seed,
    }
    return state.run(overrides, size=size, params=body(state.base, tuple(shape[size].items())), windows=batch, setting=setting, **labels)


@functools.cache
def body(base, shape):
    """N of a size: parameters without embedding and head."""
    model = base.replace(**dict(shape)).model
    return cfg.component(model.name, cfg.MODELS).parameters(model).body


def descent(state, size, batch, setting=TEXT):
    """Descent of one size and batch size over learning rates, on the tune split: the loss at the end of the run is lowest."""
    state = state.on("tune")
    size, batch = trained(state, size, batch, setting)

    @functools.cache
    def known(rate):
        found = [state.loss(run(state, size, batch, rate, seed, setting)) for seed in state.seeds(state["tuning_seeds"])]
        return None if None in found else found

    losses = lambda point: known(point["rate"])
    width = lambda size, setting: shapes(state, setting)[size]["model.width"]
    rule = state["start"] * (batch / state["tune_batch"]) ** 0.5 * width(state["tune_size"], TEXT) / width(size, setting)
    axes = {"rate": state["rates"]}
    start = {"rate": tuning.nearest(state["rates"], rule)}
    noise = tuning.seed_noise([losses(p) for p in tuning.descend(axes, start, losses).visited if losses(p)])
    return tuning.descend(axes, start, losses, noise)


def tuned(state, size, batch, setting=TEXT):
    """The learning rate of a finished descent: the minimum of a parabola in its logarithm through the losses next to the lowest.

    At the edge of what was tried, or where the losses do not bend upwards, the rate tried with the lowest loss.
    """
    import pandas as pd

    state = state.on("tune")
    found, (size, batch) = descent(state, size, batch, setting), trained(state, size, batch, setting)
    units = {p["rate"]: [run(state, size, batch, p["rate"], s, setting) for s in state.seeds(state["tuning_seeds"])] for p in found.visited}
    losses = pd.Series({rate: tuning.mean(map(state.loss, units[rate])) for rate in sorted(units)})
    try:
        return derived.parabola_minimum(losses[np.isfinite(losses)], reach=1)
    except NotTestable:
        return found.point["rate"]


def rate(state, size, batch, setting=TEXT):
    """The learning rate of any size and batch size: that of the middle size at this batch size, times what other sizes need.

    rate(N, B) = rate(N_0, B) rate(N, B_0) / rate(N_0, B_0), each of the three tuned on the tune split; N_0, B_0 in the middle. The
    held-out size is tuned there too: its learning rate is chosen like any other's, while the law sees none of its losses.
    """
    middle, center = state["tune_size"], state["tune_batch"]
    return tuned(state, middle, batch, setting) * tuned(state, size, center) / tuned(state, middle, center)


def edge(state, size, batch, setting=TEXT):
    """Whether a rate tuned for this cell lies at the edge of its grid."""
    pairs = ((state["tune_size"], batch, setting), (size, state["tune_batch"], TEXT))
    return any(descent(state, *pair).edges for pair in pairs)


def tune(state):
    """The middle size at every batch size, every size at the middle one."""
    middle, center = state["tune_size"], state["tune_batch"]
    batches = [*state["batches"], *held_batches(state)]
    return _visited(state, [(middle, batch) for batch in batches] + [(size, center) for size in shapes(state, TEXT)], TEXT)


def tune_known(state):
    """The middle size at every batch size, on the text of known entropy; what other sizes need is taken from the text."""
    return _visited(state, [(state["tune_size"], batch) for batch in known_batches(state)], KNOWN)


def _visited(state, pairs, setting):
    """The runs of the descents of (size, batch) pairs; where an ablation trains several pairs alike they share one descent."""
    seeds = state.seeds(state["tuning_seeds"])
    descents = {trained(state, *pair, setting): descent(state, *pair, setting) for pair in pairs}
    return [
        run(state, *pair, point["rate"], seed, setting) for pair, found in descents.items() for point in found.visited for seed in seeds
    ]


def sizes(state):
    """Every fitted size at every fitted batch size."""
    return _grid(state, state["sizes"], state["batches"])


def held_size(state):
    """The size that is predicted, at some of the batch sizes."""
    return _grid(state, state["held_size"], state["held_size_batches"])


def held_batch(state):
    """The batch size that is predicted, at some of the fitted sizes."""
    return _grid(state, state["held_batch_sizes"], held_batches(state))


def known(state):
    """The text of known entropy: fitted sizes and the size that is predicted."""
    return _grid(state, [*state["known_sizes"], *state["known_held"]], known_batches(state), KNOWN)


def _grid(state, sizes, batches, setting=TEXT):
    out = []
    for size in sizes:
        for batch in batches:
            chosen, at_edge = rate(state, size, batch, setting), edge(state, size, batch, setting)
            out += [run(state, size, batch, chosen, seed, setting, edge=at_edge) for seed in state.seeds(state["seeds"])]
    return out


def held_batches(state):
    """The batch size held out, in a tuple; empty where there is none."""
    return () if state["held_batch"] is None else (state["held_batch"],)


def known_batches(state):
    """Batch sizes on the text of known entropy; none where the command line has chosen the text, or this scale has no such stage."""
    chosen = set(state["known"]) & state.taken
    return () if chosen or not state["known_sizes"] else tuple(state["known_steps"])


def rows(unit, metrics, runs):
    """A row per evaluation beyond the first, which holds the warm-up: params (not of embedding and head), batch in tokens, steps so far, loss."""
    if unit.kind != "train":
        return []
    run, label, counted = unit.config, unit.label, run_columns(unit.config)
    batch = label["windows"] * run.data.sequence
    shared = {
        "setting": label["setting"],
        "size": label["size"],
        "params": label["params"],
        "params_trained": counted["params_body"],
        "batch": batch,
        "seed": run.seed % APART,
        "rate": run.optimizer.learning_rate,
        "edge": label.get("edge", False),
        "floor": floor(run.data) if label["setting"] == KNOWN else math.nan,
        "runs": (unit.identity,),
    }
    along = metrics["evaluations"]
    places = list(zip(along["step"], along["test/loss"], strict=True))[1:]
    return [{**shared, "steps": step, "tokens": step * batch, "loss": loss} for step, loss in places]


@functools.cache
def floor(data):
    """What a perfect model gets on the test windows of a synthetic text, nats per token."""
    return synthetic.generator_loss(data, stream.evaluation(open_corpus(data), data, "test"))


def notes(frame):
    """What a reader should know first."""
    out = [
        "Words: N counts the parameters but embedding and head; a batch is counted in tokens per step; the critical batch B_crit is the one "
        "at which a loss takes twice the least steps and twice the least tokens. Losses are of fixed test windows, a point every few steps, "
        "averaged over seeds; the first, which holds the warm-up, is left out. The learning rate is constant after that. It was tuned on the "
        "tune split, for the loss at the end of the run, so early parts of a trajectory might be faster at another rate; that of the larger size too, "
        "but the law sees none of its losses."
    ]
    at_edge = frame[frame["edge"]]
    edges = sorted({f"size {size} at {batch} tokens" for size, batch in zip(at_edge["size"], at_edge["batch"], strict=True)})
    if edges:
        out.append(f"A learning rate was tuned to the edge of its grid, beyond which there may be a better one: {'; '.join(edges)}.")
    return out
