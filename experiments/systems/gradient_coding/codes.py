"""Gradient codes: the cyclic code with its decoder, and the closed formulas of the three schemes.

n workers; a load is the share of the data one worker's tasks of a round touch, so that uncoded work has load 1 / n.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from scaling_jax.records import ConfigError, field

SCHEMES = ("uncoded", "GC", "SR-SGC", "M-SGC")
DRAWS = 6  # of a random code, out of which the one with the smallest coefficients is taken: its decoding loses the fewest digits


@dataclass(frozen=True)
class Design:
    """A scheme and its parameters.

    s: stragglers tolerated in a round (GC). B, W, lam: in any W consecutive rounds at most lam workers straggle, none over more
    than B rounds (SR-SGC, M-SGC). mu: the master waits (1 + mu) times as long as for the fastest worker.
    """

    scheme: str = field("uncoded", choices=SCHEMES)
    s: int = field(0, at_least=0)
    B: int = field(1, at_least=1)
    W: int = field(2, at_least=2)
    lam: int = field(0, at_least=0)
    mu: float = field(1.0, at_least=0.0)


def name(design):
    """A design in words: "M-SGC B=1 W=2 lambda=27 mu=1"."""
    said = {"uncoded": "", "GC": f" s={design.s}"}.get(design.scheme, f" B={design.B} W={design.W} lambda={design.lam}")
    return f"{design.scheme}{said} mu={design.mu:g}"


def check(design, n):
    """Refuses a design that n workers cannot carry; returns it."""
    if design.scheme == "GC" and design.s >= n:
        raise ConfigError(f"s = {design.s}: {n} workers tolerate at most {n - 1} stragglers in a round")
    if design.scheme in ("SR-SGC", "M-SGC"):
        if not 1 <= design.lam <= n:
            raise ConfigError(f"lam = {design.lam}: of {n} workers between 1 and {n} can straggle")
        if design.scheme == "M-SGC" and design.B >= design.W:
            raise ConfigError(f"B = {design.B}, W = {design.W}: M-SGC needs a window longer than a burst")
        if design.scheme == "SR-SGC" and ((design.W - 1) % design.B or tolerated(design) >= n):
            raise ConfigError(
                f"B = {design.B}, W = {design.W}, lam = {design.lam}: SR-SGC needs W - 1 divisible by B, and ceil(B lam / (W - 1 + B)) below {n}"
            )
    return design


def tolerated(design):
    """s of the gradient code a design uses: its own, ceil(B lambda / (W - 1 + B)) of SR-SGC, lambda of M-SGC."""
    if design.scheme == "SR-SGC":
        return math.ceil(design.B * design.lam / (design.W - 1 + design.B))
    return {"uncoded": 0, "GC": design.s, "M-SGC": design.lam}[design.scheme]


def delay(design):
    """T: a job that starts in round t is decoded by the end of round t + T."""
    return {"uncoded": 0, "GC": 0, "SR-SGC": design.B, "M-SGC": design.W - 2 + design.B}[design.scheme]


def load(design, n):
    """Share of a job's data that a worker's tasks of one round touch.

    uncoded 1 / n;  GC, SR-SGC (s + 1) / n;  M-SGC (lambda + 1)(W - 1 + B) / (n (B + (W - 1)(lambda + 1))), and
    (W - 1 + B) / (n (W - 1)) for lambda = n.   Source: arXiv:2211.13802, section 3.
    """
    if design.scheme != "M-SGC":
        return (tolerated(design) + 1) / n
    B, W, lam = design.B, design.W, design.lam
    return (W - 1 + B) / (n * (W - 1)) if lam == n else (lam + 1) * (W - 1 + B) / (n * (B + (W - 1) * (lam + 1)))


def least_load(n, B, W, lam):
    """No scheme that tolerates all (B, W, lambda)-bursty patterns has a smaller load: (W - 1 + B) / (n (W - 1) + B (n - lambda))."""
    return (W - 1 + B) / (n * (W - 1) + B * (n - lam))


@functools.lru_cache(maxsize=256)
def cyclic_code(n, s):
    """Rows of the encoding matrix [n, n]: worker i sends sum_j B[i, j] g_j over chunks j = i, ..., i + s (mod n).

    The span of any n - s rows holds the vector of ones: rows lie in the null space of a random H [s, n] whose rows sum to zero.

    Source: Tandon et al. 2017 (Gradient Coding), algorithm 2.
    """
    codes = [_draw(n, s, np.random.default_rng([n, s, i])) for i in range(DRAWS)] if s else [np.eye(n)]
    code = min(codes, key=lambda code: np.abs(code).max())
    code.flags.writeable = False
    return code


def _draw(n, s, rng):
    h = rng.standard_normal((s, n))
    h[:, -1] = -h[:, :-1].sum(1)
    code = np.zeros((n, n))
    for i in range(n):
        at = (i + np.arange(s + 1)) % n
        code[i, i] = 1.0
        code[i, at[1:]] = -np.linalg.solve(h[:, at[1:]], h[:, i])
    return code


@functools.lru_cache(maxsize=4096)
def decoder(n, s, answered):
    """The shortest a with sum_i a_i B[i] = (1, ..., 1) over the workers `answered` (a tuple of at least n - s), one entry each.

    Rounding in the messages grows with the length of a, which is long for a few unlucky sets of a random code: errors of decoded
    sums are near 1e-13 in the median, and were 1e-10 in the worst of some thousand.

    Raises:
      ValueError: fewer have answered.
    """
    if len(answered) < n - s:
        raise ValueError(f"{len(answered)} of {n} workers answered, the code needs {n - s}")
    rows = cyclic_code(n, s)[list(answered)].T
    left, sizes, right = np.linalg.svd(rows, full_matrices=False)
    rank = n - s  # of any n - s rows or more
    solve = lambda target: right[:rank].T @ ((left[:, :rank].T @ target) / sizes[:rank])
    a = solve(np.ones(n))
    return a + solve(np.ones(n) - rows @ a)  # one step of refinement
