"""The paper's 104 published runs: read, and fitted as the authors fitted them.

Each of three training sets has a law of its own. The loss law is fitted to five cheap runs, unweighted; the error law to the same five
and the 1.4B run at M = 20; everything that costs more than all of those is held out.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaling_jax.laws import fitting, forms, tables
from scaling_jax.laws.form import NotTestable
from scaling_jax.records import field

TABLE = Path(__file__).resolve().parents[2] / "published" / "over_training_runs.csv"
BASE = 20  # tokens per parameter that the paper counts as not over-trained
SMALLEST, BILLION = 10_569_312, 1_439_795_200  # parameters of the run that is over-trained in the fit, and of the one the error law adds
NAMES = {SMALLEST: "0.011B", 78_914_048: "0.079B", 153_677_376: "0.154B", 411_616_256: "0.411B", BILLION: "1.44B", 6_889_410_560: "6.89B"}
PRINTED = {  # the paper's table of fitted constants: training set -> E, eta
    "C4": (1.51, 0.121),
    "RedPajama": (1.84, 0.136),
    "RefinedWeb": (1.73, 0.127),
}

# The rival that knows nothing of over-training: a line through the runs at M = 20 against compute, with a floor.
compute_power = forms.offset_power(
    "compute_power", "compute", ("E", "A", "alpha"), "arXiv:2001.08361, eq. 1.1 in compute, with a floor", exponents=(0.005, 2.5)
)


@dataclass(frozen=True)
class Published:
    """How the published runs are read.

    labels: "true"; or "shuffled": token counts exchanged among the runs of one size and training set; or "blind": laws see every run as
    one of the same compute at M = 20.
    """

    labels: str = field("true", choices=("true", "shuffled", "blind"))
    tasks: str = field("error17", choices=("error17", "error46"))


def runs(labels="true", seed=0):
    """The published runs as a frame: train_set, size, params, tokens, multiplier, compute = 6 N D, loss, error17, error46, use,
    error_fit.

    use: "fit" (the five runs of the loss law), "held out" (costs more than each of those), "other". error_fit: 1 for the six runs of the
    error law, those five and 1.4B at M = 20. labels, seed: see `Published`.
    """
    frame = tables.read_points(TABLE, needed=("params", "tokens", "multiplier", "loss", "error46", "error17"))
    frame["size"] = [NAMES[int(n)] for n in frame["params"]]
    if labels == "shuffled":
        rng = np.random.default_rng(seed)
        for _, part in frame.groupby(["train_set", "size"], sort=True):
            order = rng.permutation(len(part))
            frame.loc[part.index, ["tokens", "multiplier"]] = part[["tokens", "multiplier"]].to_numpy()[order]
    frame["compute"] = 6 * frame["params"] * frame["tokens"]
    plain = (frame["multiplier"] == BASE) & (frame["params"] < BILLION)
    fit = plain | ((frame["multiplier"] == 16 * BASE) & (frame["params"] == SMALLEST))
    dearest = frame[fit].groupby("train_set")["compute"].max()
    beyond = frame["compute"] > dearest.reindex(frame["train_set"]).to_numpy() * (1 + 1e-9)
    frame["use"] = np.where(fit, "fit", np.where(beyond, "held out", "other"))
    frame["error_fit"] = (fit | ((frame["multiplier"] == BASE) & (frame["params"] == BILLION))).astype(int)
    if labels == "blind":
        frame["params"] = np.sqrt(frame["compute"] / (6 * BASE))
        frame["tokens"] = BASE * frame["params"]
    return frame


def loss_law(part):
    """L(C, M) of one training set from its five runs: a Fit of forms.over_training."""
    return fitting.fit(forms.over_training, part[part["use"] == "fit"])


def rival_law(part):
    """The line through the same training set's runs at M = 20 among the five: a Fit of compute_power."""
    return fitting.fit(compute_power, part[(part["use"] == "fit") & (part["multiplier"] == BASE)])


def error_law(part, tasks="error17"):
    """Err(L) of one training set: a Fit of forms.downstream_error."""
    return fitting.fit(forms.downstream_error, part[part["error_fit"] == 1], y=tasks)


def error_rival(part, tasks="error17"):
    """The same errors against compute alone, from the same six runs: a Fit of compute_power."""
    return fitting.fit(compute_power, part[part["error_fit"] == 1], y=tasks)


def predicted(part, tasks="error17"):
    """One training set's runs with the columns predicted, rival (losses), error, predicted_error, rival_error, error_held_out."""
    loss, rival = loss_law(part), rival_law(part)
    held_out = (part["use"] == "held out") & (part["error_fit"] == 0)
    return part.assign(
        predicted=loss.predict(part),
        rival=rival.predict(part),
        error=part[tasks],
        predicted_error=error_law(part, tasks).predict({"loss": loss.predict(part)}),
        rival_error=error_rival(part, tasks).predict(part),
        error_held_out=held_out.astype(int),
    )


def read_and_fit(settings, seed):
    """The published runs as rows, with what the laws say of each; and the laws' constants with intervals.

    All rows of one size are one observation, whatever M and training set: their errors have a common part (`common_part`).
    """
    frame = runs(settings.labels, seed)
    rows, found = [], []
    for name, part in frame.groupby("train_set", sort=True):
        part = predicted(part, settings.tasks)
        for row in part.drop(columns=["model", "error17", "error46"]).to_dict("records"):
            row["multiplier"], row["over_trained"] = int(row["multiplier"]), int(row["multiplier"] >= BASE)
            rows.append({"run": row["size"], "cell": "published", **row})
        found += _estimates(name, part)
    return {"rows": rows, "estimates": found}


def common_part(frame):
    """How alike held-out runs of one size err, over all training sets: shares of the variance of signed relative errors that lie between sizes.

    (of losses, of task errors, what independent runs would give): sum_s n_s (mean_s - mean)^2 / sum (e - mean)^2, and (sizes - 1) / (runs - 1).
    """
    found = []
    for column, predicted, measured in (("use", "predicted", "loss"), ("error_held_out", "predicted_error", "error")):
        part = frame[frame[column] == {"use": "held out"}.get(column, 1)]
        errors = part[predicted] / part[measured] - 1
        found.append(float(errors.groupby(part["size"]).transform("mean").var(ddof=0) / errors.var(ddof=0)))
    return (*found, (part["size"].nunique() - 1) / (len(part) - 1))


def _estimates(name, part):
    five, out = loss_law(part), []
    for which, value in zip(("E", "eta"), PRINTED[name], strict=True):
        unit = "nats/token" if which == "E" else ""
        out.append(
            {"text": f"published, {name}: {which} from five runs", "unit": unit, "n": five.n, "paper_value": value} | _of(five, which)
        )
    many = part[part["multiplier"] >= BASE]
    every, sizes = fitting.fit(forms.over_training, many), many["size"].to_numpy()
    text = f"published, {name}: eta from all {every.n} runs with M of 20 or more, a size counting as one run"
    return [*out, {"text": text, "n": len(set(sizes)), "paper_value": PRINTED[name][1]} | _of(every, "eta", sizes)]


def _of(found, name, clusters=None):
    """Value and interval of a parameter as an estimate; without an interval it says why."""
    try:
        interval = found.interval(name, clusters=clusters)
    except NotTestable as error:
        return {"value": float(found[name]), "reason": str(error)}
    ends = [float(interval.low), float(interval.high)]
    return {"value": float(found[name])} | ({"ci95": ends} if all(map(math.isfinite, ends)) else {"reason": "the interval has no end"})
