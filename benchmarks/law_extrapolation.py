"""How far laws that were fitted to the cheapest published runs hold: errors and bands at ten times the compute and beyond.

    python benchmarks/law_extrapolation.py --json benchmarks/results/law_extrapolation_DATE.json [--chinchilla svg_extracted_data.csv]

A law is fitted to the runs up to a cutoff of compute, 6 N D, and predicts every run beyond it: median relative error, and the share of
runs inside their 95% band (kind="run"), by how many times the cutoff they cost. The band is given twice: with every run an independent
observation, and with the runs of one budget (a third of a decade of compute) as a cluster, which shows how far the law itself is off.

over-training: the 104 runs of arXiv:2403.08540 (experiments/published), each training set a law of its own; once all, once without the
runs of less than 20 tokens per parameter, of which those of 5 ended within their warm-up (376 steps of 400, 1963 of 2000); and the five
runs that the paper itself fits. --chinchilla: the points of arXiv:2203.15556 read off its figure 4 by arXiv:2404.10102
(github.com/epoch-research/analyzing-chinchilla, data/), without the five highest losses, as there. They are not in this repository.
"""

import argparse
import collections
import json
import math
import pathlib
import platform
import time

import numpy as np

from scaling_jax import laws
from scaling_jax.laws import forms, tables
from scaling_jax.laws.form import NotTestable

PUBLISHED = pathlib.Path(__file__).parents[1] / "experiments" / "published" / "over_training_runs.csv"
REACH = ((1, 3), (3, 12), (12, 100), (100, math.inf))  # times the cutoff; budgets double or quadruple, so 10 lies within the second
LAWS = {
    "chinchilla, huber": dict(law=forms.chinchilla, loss="huber"),
    "chinchilla, log": dict(law=forms.chinchilla, loss="log"),
    "over_training, log": dict(law=forms.over_training, loss="log"),
}
# arXiv:2403.08540, table 1: (layers' width, tokens per parameter) of the runs its scaling laws are fitted to
PAPERS = (("d=96_l=8_h=4", 20), ("d=512_l=8_h=4", 20), ("d=576_l=24_h=8", 20), ("d=1024_l=24_h=8", 20), ("d=96_l=8_h=4", 320))


def over_training_runs():
    """{name: frame}: each training set, all runs and those of 20 tokens per parameter or more."""
    frame = tables.read_points(PUBLISHED, needed=("params", "tokens", "loss", "multiplier"))
    out = {}
    for name, part in frame.groupby("train_set"):
        out[f"over-training, {name}, all runs"] = part
        out[f"over-training, {name}, 20 tokens per parameter or more"] = part[part["multiplier"] >= 20]
    return out


def chinchilla_runs(path):
    """The 240 points: tokens are compute / (6 N)."""
    import pandas

    raw = pandas.read_csv(path)[["Model Size", "Training FLOP", "loss"]].dropna()
    frame = pandas.DataFrame({"params": raw["Model Size"], "tokens": raw["Training FLOP"] / (6 * raw["Model Size"]), "loss": raw["loss"]})
    return {"Chinchilla, figure 4": frame.sort_values("loss").iloc[:-5]}


def compute_of(frame):
    return (6 * frame["params"] * frame["tokens"]).to_numpy()


def cutoffs(compute):
    """Compute up to which runs are fitted: a tenth of the largest, and what the cheapest tenth, quarter and half of the runs cost."""
    ranked = np.sort(compute)
    shares = {f"cheapest {share:.0%} of the runs": float(ranked[math.ceil(share * len(ranked)) - 1]) for share in (0.1, 0.25, 0.5)}
    return {"a tenth of the largest compute": float(ranked[-1]) / 10} | shares


def bands(law, loss, fitted, rest):
    """The fit, and the bands of new runs: runs independent, and budgets left out one at a time (None where that cannot be done)."""
    at = {name: rest[name].to_numpy() for name in law.inputs}
    found = laws.fit(law, fitted, loss=loss)
    if not found.identified:
        raise NotTestable(found.warnings[0])
    plain = found.band(at, kind="run")
    try:
        budgets = np.round(3 * np.log10(compute_of(fitted)))
        return found, plain, laws.fit(law, fitted, loss=loss, clusters=budgets).band(at, kind="run")
    except NotTestable:
        return found, plain, None


def ahead(frame, law, loss, fitted, cutoff):
    """One fit to the runs `fitted` [n, bool] and what it says of those beyond the cutoff; the reason where it cannot be fitted."""
    compute, out = compute_of(frame), {"fitted_runs": int(fitted.sum())}
    rest = frame[(compute > cutoff * (1 + 1e-9)) & ~fitted]
    try:
        found, plain, clustered = bands(law, loss, frame[fitted], rest)
    except NotTestable as error:
        return out | {"not_testable": str(error)}
    out["params"] = {name: float(f"{value:.5g}") for name, value in found.params.items()}
    out["residual_sd"] = float(f"{np.sqrt(np.sum(found.residuals() ** 2) / max(found.n - len(found.free), 1)):.3g}")
    times, y = compute_of(rest) / cutoff, rest["loss"].to_numpy()
    for low, high in REACH:
        here = (times > low) & (times <= high)
        if here.any():
            off = (plain.value / y - 1)[here]
            one = out[f"{low:g} to {high:g} times"] = {
                "runs": int(here.sum()),
                "median_relative_error": float(f"{np.median(np.abs(off)):.3g}"),
            }
            one["mean_signed_error"] = float(f"{off.mean():.3g}")
            for label, band in (("rows", plain), ("budgets", clustered)):
                if band is not None:
                    inside, width = ((band.low <= y) & (y <= band.high))[here], np.median(((band.high - band.low) / y)[here])
                    one[f"inside_{label}"] = float(f"{inside.mean():.3g}")
                    one[f"width_{label}"] = float(f"{width:.3g}") if np.isfinite(width) else None
    return out


def by_size(frame):
    """`power` in N at each ratio of tokens to params that five sizes were trained at: fitted to all but the largest two, or but the largest."""
    out = {}
    for ratio, part in frame.groupby("multiplier"):
        sizes = np.sort(part["params"].unique())
        for left_out in (2, 1):
            if len(sizes) - left_out >= 4:
                fitted = (part["params"] <= sizes[-left_out - 1]).to_numpy()
                label = f"power, {ratio:g} tokens per parameter, up to {sizes[-left_out - 1]:.3g} params"
                out[label] = ahead(part, forms.power, "lsq", fitted, float(compute_of(part)[fitted].max()))
    return out


def everything(frame):
    """All fits of one data set."""
    compute, out = compute_of(frame), {}
    for label, cutoff in cutoffs(compute).items():
        for law, how in LAWS.items():
            out[f"{law}, {label}"] = ahead(frame, **how, fitted=compute <= cutoff * (1 + 1e-9), cutoff=cutoff)
    if "multiplier" in frame and frame["multiplier"].min() >= 20:
        papers = np.array([pair in PAPERS for pair in zip(frame["model"], frame["multiplier"], strict=True)])
        for loss in ("lsq", "log"):
            out[f"over_training, {loss}, the paper's five runs"] = ahead(
                frame, forms.over_training, loss, papers, float(compute[papers].max())
            )
        out |= by_size(frame)
    return out


def show(label, one):
    print(f"  {label}: fitted to {one['fitted_runs']}{', ' + one['not_testable'] if 'not_testable' in one else ''}")
    for reach, at in one.items():
        if isinstance(at, dict) and "runs" in at:
            inside = "  ".join(
                f"inside by {kind} {at[f'inside_{kind}']:4.0%} ({at[f'width_{kind}'] or math.inf:.1%} wide)"
                for kind in ("rows", "budgets")
                if f"inside_{kind}" in at
            )
            print(
                f"     {reach:18s} {at['runs']:3d} runs  median error {at['median_relative_error']:6.2%} ({at['mean_signed_error']:+.2%})  {inside}"
            )


def main():
    """Prints and writes errors and coverage per data set, law and cutoff."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chinchilla", metavar="PATH")
    parser.add_argument("--json")
    args = parser.parse_args()
    begin, sets = time.process_time(), over_training_runs()
    if args.chinchilla:
        sets |= chinchilla_runs(args.chinchilla)
    out, total = {}, collections.defaultdict(list)
    for name, frame in sets.items():
        out[name] = everything(frame)
        print(f"{name}: {len(frame)} runs")
        for label, one in out[name].items():
            show(label, one)
            if (at := one.get("3 to 12 times")) is not None and "inside_budgets" in at:
                total[name].append((at["runs"], at["median_relative_error"], at["inside_rows"], at["inside_budgets"]))
    print("at 3 to 12 times the cutoff, over all fits of a data set: median of the median errors, shares of runs inside")
    for name, rows in total.items():
        runs, error, rows_in, budgets_in = np.array(rows).T
        print(
            f"  {name}: {np.median(error):.2%}, by rows {runs @ rows_in / runs.sum():.0%}, by budgets {runs @ budgets_in / runs.sum():.0%} ({int(runs.sum())})"
        )
    if args.json:
        text = {"machine": platform.machine(), "python": platform.python_version(), "numpy": np.__version__}
        text["cpu_seconds"] = round(time.process_time() - begin, 1)
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(text | {"sets": out}, file, indent=1)


if __name__ == "__main__":
    main()
