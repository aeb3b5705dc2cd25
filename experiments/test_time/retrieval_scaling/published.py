"""Inference scaling for long-context RAG (arXiv:2410.04343), its published figures: growth with context, and the allocation model.

The table names, for five budgets of context, the best accuracy of every method. "Nearly linear in the logarithm of the context" is what
hotpotqa and musique show; bamboogle and 2wiki rise by 17 and 21 points from 32k to 128k tokens and then level off, and five points
leave the slope of their line with an interval that contains zero.
"""

from pathlib import Path

import numpy as np

from scaling_jax.laws import fitting, forms, tables

FOLDER = Path(__file__).resolve().parents[2] / "published"
DATA_SETS = ("bamboogle", "hotpotqa", "musique", "2wiki")


def line(log10_context, *, level=(-200.0, 200.0), slope=(-100.0, 100.0)):
    """P = level + slope (log10 L_max - 5), in percent: level at 100,000 tokens"""
    return level + slope * (log10_context - 5)


def accuracies():
    """Table 1 as a frame: context (tokens), method, and percent correct on each data set."""
    return tables.read_points(FOLDER / "retrieval_scaling.csv", needed=("context", *DATA_SETS)).astype({"context": int})


def optimum(frame, data_set, method=None):
    """Best accuracy within each budget, over all methods or of one: a Series by context.

    data_set: one of `DATA_SETS`, or "mean": the average of their optima.
    """
    part = frame if method is None else frame[frame["method"] == method]
    names = list(DATA_SETS) if data_set == "mean" else [data_set]
    return part.groupby("context")[names].max().mean(axis=1)


def growth(frame, data_set, method=None, most=np.inf):
    """The least-squares line of the optimum in log10 context, up to `most` tokens: a Fit with `slope` (points per decade) and r2."""
    best = optimum(frame, data_set, method)
    best = best[best.index <= most]
    return fitting.fit(line, {"log10_context": np.log10(best.index.to_numpy(float)), "accuracy": best.to_numpy()}, y="accuracy")


def r2_interval(frame, data_set, method=None, most=np.inf, level=0.95):
    """That line's r2 with its interval, from Fisher's z of the correlation: (r2, low, high); low is 0 where the sign is not known.

    Normal errors and four budgets or more.
    """
    from scipy.stats import pearsonr

    best = optimum(frame, data_set, method)
    best = best[best.index <= most]
    found = pearsonr(np.log10(best.index.to_numpy(float)), best.to_numpy())
    low, high = found.confidence_interval(level)
    ends = sorted((float(low) ** 2, float(high) ** 2))
    return float(found.statistic) ** 2, ends[0] if low * high > 0 else 0.0, ends[1]


def allocation():
    """The published parameters of forms.allocation, by name."""
    rows, out = tables.read_points(FOLDER / "retrieval_allocation.csv").set_index("name").to_dict("index"), {}
    for name in ("documents", "shots", "iterations"):
        out[f"a_{name}"] = float(rows["a"][name])
        if name != "iterations":
            out[f"b_{name}"] = float(rows["b"][name])
    return {name: {**out, "c": float(rows["c"]["documents"])}[name] for name in forms.allocation.params}


def performance(documents, shots, iterations, gain_documents, gain_shots):
    """Predicted normalised performance of allocations theta = (documents, shots, iterations), each an array [n] or a number."""
    columns = dict(documents=documents, shots=shots, iterations=iterations, gain_documents=gain_documents, gain_shots=gain_shots)
    arrays = np.broadcast_arrays(*(np.atleast_1d(np.asarray(v, float)) for v in columns.values()))
    return forms.allocation.predict(allocation(), dict(zip(columns, arrays, strict=True)))
