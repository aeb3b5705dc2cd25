"""Tuning as a stage: coordinate descent on a grid until no single change helps beyond seed noise.

The certificate is that of arXiv:2509.14786: a point is locally optimal when every neighbour one grid step away
on one axis has been run and none is better. The descent is a pure function of the losses known so far, so an
interrupted study asks again for exactly what is missing. Losses are of the tune split, with tuning seeds.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Descent:
    """Where a coordinate descent stands.

    point: the current best, axis -> value. needed: grid points whose losses are missing. certified: all
    neighbours are known and none helps. edges: axes whose best value is the first or last of its grid.
    """

    point: dict
    needed: tuple
    certified: bool
    edges: tuple
    visited: tuple


def descend(axes, start, losses, noise=0.0, limit=100):
    """Coordinate descent from `start` over the grid `axes`.

    Args:
      axes: name -> tuple of values, in order. start: name -> one of them.
      losses: function from a point (dict) to a list of losses, one per tuning seed, or None while unknown.
      noise: standard deviation of one run's loss over seeds; a change must gain more than
        noise x sqrt(2 / seeds), one standard error of a difference, to count as help.
    """
    for name, value in start.items():
        if value not in axes[name]:
            raise ValueError(f"start {name} = {value!r}: not on its grid {axes[name]!r}")
    point, visited = dict(start), []
    for _ in range(limit):
        around = [point, *neighbours(axes, point)]
        visited += [p for p in around if p not in visited]
        missing = tuple(p for p in around if losses(p) is None)
        if missing:
            return Descent(point, missing, False, _edges(axes, point), tuple(visited))
        here = losses(point)
        best = min(around[1:], key=lambda p: mean(losses(p)), default=point)
        if not mean(losses(best)) < mean(here) - noise * math.sqrt(2 / len(here)):
            return Descent(point, (), True, _edges(axes, point), tuple(visited))
        point = best
    raise RuntimeError(f"coordinate descent did not settle in {limit} moves; the losses must have changed under it")


def nearest(values, wanted):
    """The grid value closest to `wanted` on a log scale; the middle one when nothing is wanted."""
    if wanted is None:
        return values[len(values) // 2]
    if wanted > 0:
        return min(values, key=lambda v: abs(math.log(v / wanted)) if v > 0 else math.inf)
    return min(values, key=lambda v: abs(v - wanted))


def neighbours(axes, point):
    """All points one grid step away from `point` on one axis."""
    out = []
    for name, values in axes.items():
        at = values.index(point[name])
        out += [{**point, name: values[i]} for i in (at - 1, at + 1) if 0 <= i < len(values)]
    return out


def seed_noise(groups):
    """Pooled standard deviation over seeds: sqrt(sum (x - mean)^2 / sum (n - 1)) over groups of losses; 0 when every group has one.

    A group with a run that diverged says nothing about seeds and is left out.
    """
    groups = [g for g in groups if math.isfinite(mean(g))]
    squares = sum(sum((x - mean(g)) ** 2 for x in g) for g in groups)
    freedom = sum(len(g) - 1 for g in groups)
    return math.sqrt(squares / freedom) if freedom else 0.0


def mean(values):
    """Arithmetic mean; infinity when a run diverged."""
    values = list(values)
    return sum(values) / len(values) if all(math.isfinite(v) for v in values) else math.inf


def _edges(axes, point):
    return tuple(name for name, values in axes.items() if len(values) > 1 and point[name] in (values[0], values[-1]))
