"""Known floor, what is run: sizes and numbers of tokens on texts whose entropy is known, each token read once, learning rates tuned."""

import dataclasses
import functools
import math

import numpy as np

from scaling_jax.data import stream, synthetic
from scaling_jax.data.corpus import open_corpus
from scaling_jax.studies import tuning
from scaling_jax.studies.study import run_columns

from . import statistics

APART = 1_000  # between seeds of cells that an ablation trains alike: their runs would be the same ones


def largest(state, source):
    """The size on which the law in data is fitted: the last of the source's sizes."""
    return list(state["sizes"][source])[-1]


def run(state, source, size, steps, rate, seed, **labels):
    """The unit that trains `size` on `steps` batches of `source`, no window twice."""
    text, shape = dict(state["sources"][source]), dict(state["sizes"][source][size])
    trained = min(state["steps"]) if state["same_tokens"] else steps
    if state["same_tokens"]:
        seed += APART * (1 + list(state["steps"]).index(steps))
    zipf = text.get("data.synthetic.zipf", state.base.data.synthetic.zipf)
    if state["foreign"]:  # ablation: a text other than the one whose entropy is told
        text["data.synthetic.zipf"] = zipf * (1 + state["foreign"])
    # a source given on the command line replaces ours; if its entropy is unknown, no claim is testable
    text = {name: value for name, value in text.items() if name not in state.taken}
    overrides = {**text, **shape, "train.steps": trained, "optimizer.learning_rate": rate, "seed": seed}
    return state.run(overrides, source=source, size=size, budget=steps, told=zipf, **labels)


def descent(state, source, size, steps):
    """Descent of one source, size and number of steps over learning rates, on the tune split."""
    state = state.on("tune")

    @functools.cache
    def known(rate):
        found = [state.loss(run(state, source, size, steps, rate, seed)) for seed in state.seeds(state["tuning_seeds"])]
        return None if None in found else found

    losses = lambda point: known(point["rate"])
    axes, start = {"rate": state["rates"]}, {"rate": tuning.nearest(state["rates"], state["start"])}
    noise = tuning.seed_noise([losses(p) for p in tuning.descend(axes, start, losses).visited if losses(p)])
    return tuning.descend(axes, start, losses, noise)


def rate(state, source, size, steps):
    """The learning rate of any number of steps: ln rate is linear in ln steps between the tuned ones, and constant beyond them."""
    tuned = [descent(state, source, size, one).point["rate"] for one in state["tuned"]]
    return float(np.exp(np.interp(math.log(steps), np.log(state["tuned"]), np.log(tuned))))


def edge(state, source, size):
    """Whether a rate tuned for this size lies at the edge of its grid."""
    return any(descent(state, source, size, one).edges for one in state["tuned"])


def tune(state):
    """Every size of every source, at the numbers of steps that are tuned."""
    return [
        run(state, source, size, steps, point["rate"], seed)
        for source, sizes in state["sizes"].items()
        for size in sizes
        for steps in state["tuned"]
        for point in descent(state, source, size, steps).visited
        for seed in state.seeds(state["tuning_seeds"])
    ]


def data(state):
    """The largest size of every source on every number of tokens."""
    return _grid(state, {source: [largest(state, source)] for source in state["sizes"]}, state["steps"])


def sizes(state):
    """The other sizes, on some numbers of tokens."""
    return _grid(state, {source: list(sizes)[:-1] for source, sizes in state["sizes"].items()}, state["size_steps"])


def _grid(state, sizes, plan):
    out = []
    for source, size in ((source, size) for source, names in sizes.items() for size in names):
        flags = {"edge": edge(state, source, size)}
        for steps in plan:
            chosen = rate(state, source, size, steps)
            out += [run(state, source, size, steps, chosen, seed, **flags) for seed in state.seeds(state["seeds"])]
    return out


def rows(unit, metrics, runs):
    """A row per run: source, params, tokens, loss, the floor on the same windows, the excess over it in percent, the entropy rate."""
    config, label, counted = unit.config, unit.label, run_columns(unit.config)
    known, rate = floor(config.data, label["told"])
    loss = metrics["test/loss"]
    return [
        {
            "source": label["source"],
            "size": label["size"],
            "params": counted["params"],
            "tokens": label["budget"] * config.data.batch * config.data.sequence,
            "point": f"{label['source']}, {label['size']}, {label['budget']} steps",
            "seed": config.seed % APART,
            "rate": config.optimizer.learning_rate,
            "edge": label["edge"],
            "loss": loss,
            "floor": known,
            "excess": 100 * (loss / known - 1),
            "entropy": rate,
            "runs": (unit.identity,),
        }
    ]


@functools.cache
def floor(data, told):
    """(What a perfect model gets on the test windows, the exact entropy rate) in nats per token; nan where it is not known.

    told: the Zipf exponent of the generator, that of the text but for an ablation. A hidden Markov text has no closed rate.
    """
    if data.source not in synthetic.SOURCES:
        return math.nan, math.nan
    generator = dataclasses.replace(data, synthetic=dataclasses.replace(data.synthetic, zipf=told))
    rate = synthetic.entropy_rate(generator) if data.source == "markov" else math.nan
    return synthetic.generator_loss(generator, stream.evaluation(open_corpus(data), data, "test")), rate


def notes(frame):
    """What a reader should know first."""
    out = [
        "Words: the floor is the mean loss of the text's own generator on the very windows that models are tested on, so what is left between "
        "a model and the floor is the model's; the excess is the loss in percent above it. A token is read once. The learning rate decays to "
        "zero in every run and was tuned on the tune split, for every source and size at two numbers of tokens."
    ]
    known = frame[np.isfinite(frame["entropy"])].drop_duplicates("source")
    for source, at, rate in zip(known["source"], known["floor"], known["entropy"], strict=True):
        out.append(f"{source}: floor {at:.4f} on the test windows, exact entropy rate {rate:.4f} nats per token.")
    for source, value, low, high, true, covered, seeds in statistics.intervals_of_floors(frame):
        out.append(
            f"{source}: fitted floor {value:.4f}, 95% profile interval [{low:.4f}, {high:.4f}], true {true:.4f}: "
            f"{'covered' if low <= true <= high else 'not covered'}; of {seeds} single seeds {covered} cover it."
        )
    edges = sorted(set(frame[frame["edge"]]["source"] + ", " + frame[frame["edge"]]["size"]))
    if edges:
        out.append(f"A learning rate was tuned to the edge of its grid, beyond which there may be a better one: {'; '.join(edges)}.")
    return out
