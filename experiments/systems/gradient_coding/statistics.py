"""Sequential gradient coding, what is measured: times saved by one scheme over another, on traces of one kind."""

import functools

import numpy as np

from scaling_jax.laws.form import NotTestable
from scaling_jax.studies.claims import permute


def saved(data, scheme, over, bursts="short", wait="all", multiple=1, **where):
    """Share of the time of `over` that `scheme` saves, the mean over generators of 1 - mean time / mean time."""
    part = data.where(bursts=bursts, wait=wait, multiple=multiple, **where)
    generators = sorted(set(part["generator"].tolist()))
    if not generators:
        raise NotTestable(f"no trace with {bursts} bursts was run with this waiting rule")
    each = [part.where(generator=g) for g in generators]
    return float(np.mean([1 - p.where(scheme=scheme).mean("time") / p.where(scheme=over).mean("time") for p in each]))


def saving(scheme, over, **where):
    """`saved` as a statistic of the data alone."""
    return functools.partial(saved, scheme=scheme, over=over, **where)


def swapped(scheme, over, bursts="short", wait="all"):
    """The null of `saved`: on every trace the two schemes might as well be exchanged."""
    where = {"bursts": bursts, "wait": wait, "multiple": 1, "scheme": (scheme, over)}
    text = f"{scheme} and {over} on each trace with {bursts} bursts" + (", waiting for enough" if wait == "enough" else "")
    return permute("scheme", within=("generator", "seed"), where=where, text=text)


def more_with_bursts(data):
    """What M-SGC saves over GC with long bursts, minus what it saves without bursts."""
    return saved(data, "M-SGC", "GC", "long") - saved(data, "M-SGC", "GC", "none")


# The null of `more_with_bursts`: of each seed the trace with long bursts and the one without might as well be exchanged.
BURSTS = permute(
    "bursts",
    within=("generator", "seed"),
    where={"bursts": ("long", "none"), "wait": "all", "multiple": 1},
    text="traces with long bursts and without, of each seed",
)


def saved_in_crowd(data):
    """What M-SGC saves over GC with the largest number of workers."""
    if not (data["multiple"] > 1).any():
        raise NotTestable("one number of workers was run")
    return saved(data, "M-SGC", "GC", multiple=data["multiple"].max())


# The null of `saved_in_crowd`, as of `saved`.
CROWD = permute(
    "scheme",
    within=("generator", "seed"),
    where=lambda data: {"bursts": "short", "wait": "all", "multiple": data["multiple"].max(), "scheme": ("M-SGC", "GC")},
    text="M-SGC and GC on each trace with the largest number of workers",
)
