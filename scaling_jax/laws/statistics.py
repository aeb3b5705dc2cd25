"""Tests against chance: permutation p values, Holm's adjustment, and how many seeds a decision needs."""

import itertools
import math
from collections import Counter

import numpy as np

TIE = 1e-9  # draws this close to the observed value, relatively, are ties: sums taken in another order differ in the last bits
CAP = 10**9  # more relabelings than this need no exact count
MOST_SEEDS = 1000  # nobody plans more seeds than this


def holm(p_values):
    """Holm's adjusted p values, in the order given: p~_(k) = max_{j <= k} min(1, (m - j + 1) p_(j)).

    Rejecting p~ < a keeps the chance of any false rejection among m claims below a, whatever their dependence.
    Source: Holm 1979.
    """
    p = np.asarray(p_values, np.float64)
    if p.size and not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values = {p_values!r}: each must lie in [0, 1]")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    return adjusted


def permutation_p(observed, draw, side, count=1000, seed=0):
    """One-sided p value of `observed` against `count` draws under the null: p = (1 + #{as extreme or more}) / (1 + count).

    The ones count the observation itself among its relabelings; without them p = 0 is possible and the test is not
    valid. Ties count as extreme, and so do draws that are not finite: what cannot be compared never helps a claim.

    Args:
      draw: function from a numpy Generator to the statistic of data relabelled at random.
      side: ">" when large values speak for the claim, "<" when small ones do.
      seed: what numpy.random.default_rng takes.
    Source: Phipson and Smyth 2010.
    """
    if count < 1:
        raise ValueError(f"count = {count!r}: needs at least one permutation")
    rng = np.random.default_rng(seed)
    return (1 + _extreme(observed, [draw(rng) for _ in range(count)], side)) / (1 + count)


def exact_p(observed, draws, side):
    """One-sided p value of `observed` among all its relabelings, itself included: #{as extreme or more} / #draws; ties as in `permutation_p`."""
    return max(1, _extreme(observed, draws, side)) / len(draws)


def _extreme(observed, draws, side):
    if side not in (">", "<"):
        raise ValueError(f"side = {side!r}: expected '>' or '<'")
    draws = np.asarray(draws, np.float64)
    finite = draws[np.isfinite(draws)]
    tie = TIE * max(abs(observed), float(np.median(np.abs(finite))) if finite.size else 0.0)
    milder = finite < observed - tie if side == ">" else finite > observed + tie
    return len(draws) - int(milder.sum())


def arrangements(groups, cap=CAP):
    """Number of distinct ways to permute values inside each group, at most `cap`: product over groups of n! / prod_v m_v!."""
    total = 1
    for group in groups:
        total *= math.factorial(len(group)) // math.prod(math.factorial(m) for m in Counter(group).values())
        if total >= cap:
            return cap
    return total


def orders(labels):
    """Orders of range(n), one for each way to divide n things among the places of each label: as many as `arrangements([labels])`.

    order[place] is the thing that lands there.
    """
    labels = np.asarray(labels)
    places = [np.flatnonzero(labels == one).tolist() for one in dict.fromkeys(labels.tolist())]

    def divide(things, rest):
        if not rest:
            yield {}
            return
        for chosen in itertools.combinations(things, len(rest[0])):
            here = dict(zip(rest[0], chosen, strict=True))
            for others in divide([t for t in things if t not in chosen], rest[1:]):
                yield here | others

    for placed in divide(list(range(len(labels))), places):
        yield tuple(placed[place] for place in range(len(labels)))


def codes(keys):
    """Each key's number, counted in order of first appearance: int array."""
    keys = list(keys)
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys], int)


def clusters(groups):
    """Each group's cluster number: groups that share a member, directly or through other groups, are one cluster."""
    parent = list(range(len(groups)))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    first = {}
    for group, members in enumerate(groups):
        for member in members:
            parent[root(group)] = root(first.setdefault(member, group))
    return codes(root(group) for group in range(len(groups)))


def seeds_for_interval(effect, se, dof, seeds, level=0.95, power=0.8):
    """About how many seeds per cell make a t interval exclude a threshold `effect` away, if the estimate is the truth.

    The smallest n > seeds with effect >= (t_{(1 + level) / 2} + t_power) se sqrt(seeds / n), the t with
    dof (n - 1) / (seeds - 1) degrees of freedom; None beyond `MOST_SEEDS`.
    """
    from scipy.special import stdtrit

    n = np.arange(seeds + 1, MOST_SEEDS + 1)
    freedom = dof * (n - 1) / max(seeds - 1, 1)
    enough = abs(effect) >= (stdtrit(freedom, 0.5 + level / 2) + stdtrit(freedom, power)) * se * np.sqrt(seeds / n)
    return int(n[enough.argmax()]) if enough.any() else None


def seeds_for_p(p, needed, seeds, power=0.8):
    """About how many seeds per cell bring a one-sided p value below `needed`, if the effect is as it looks.

    Normal scores grow like sqrt(n): the smallest n > seeds with z_p sqrt(n / seeds) >= z_needed + z_power; None beyond `MOST_SEEDS`.
    """
    from scipy.special import ndtri

    if p >= 0.5:
        return None
    n = math.ceil(seeds * ((ndtri(needed) - ndtri(power)) / ndtri(p)) ** 2)
    return max(n, seeds + 1) if n <= MOST_SEEDS else None
