"""Delay traces: seconds until each worker answers in each round, before any work that grows with its load.

None of them comes from the (B, W, lambda)-bursty model that the codes assume. Both generators hold the distribution of a single
time fixed while `memory`, the correlation of one round with the next, goes from 0 (independent) towards 1 (long bursts).
"""

import csv
import functools
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaling_jax.records import ConfigError, field

GENERATORS = ("gilbert", "slow periods", "file")


@dataclass(frozen=True)
class Trace:
    """How delays come about.

    gilbert: two states (Gilbert 1960, Elliott 1963); a worker is slow in a share `straggle` of rounds, and takes then base times
      `slow` plus an exponential variable of mean `tail`.
    slow periods: Pareto times of least value `base`, of which a share `straggle` exceeds twice the base, as the normal scores of
      an autoregressive process of order one.
    file: rows of a CSV, one line per round and one column per worker, in seconds.
    """

    generator: str = field("gilbert", choices=GENERATORS)
    memory: float = field(0.0, at_least=0.0, below=1.0, doc="correlation of a worker's state in one round with that in the next")
    straggle: float = field(0.05, at_least=0.0, at_most=0.5)
    slow: float = field(1.75, at_least=1.0)
    tail: float = field(0.3, at_least=0.0)
    base: float = field(0.64, above=0.0, doc="seconds")
    jitter: float = field(0.05, at_least=0.0, doc="standard deviation of the logarithm of each time, independent")
    path: str = field("", recorded=True)
    fingerprint: str = field("", doc="of the file")


def draw(trace, rounds, workers, seed, tuning=False):
    """Delays [rounds, workers] in seconds. A file gives its first half to tuning and its second half to claims."""
    rng = np.random.default_rng([seed, 20221113])
    if trace.generator == "file":
        return _window(trace, rounds, workers, rng, tuning)
    spread = np.exp(trace.jitter * rng.standard_normal((rounds, workers)))
    if trace.straggle == 0:
        return trace.base * spread
    if trace.generator == "gilbert":
        state = gilbert(rounds, workers, trace.straggle, trace.memory, rng)
        return trace.base * spread * np.where(state, trace.slow + trace.tail * rng.standard_exponential(state.shape), 1.0)
    score = autoregression(rounds, workers, trace.memory, rng)
    return trace.base * spread * pareto(score, trace.straggle)


def gilbert(rounds, workers, share, memory, rng):
    """Slow states [rounds, workers] of independent chains: P(slow) = share, P(slow after slow) = share + memory (1 - share)."""
    uniform = rng.random((rounds, workers))
    state = np.empty((rounds, workers), bool)
    state[0] = uniform[0] < share
    for t in range(1, rounds):
        state[t] = uniform[t] < share * (1 - memory) + memory * state[t - 1]
    return state


def autoregression(rounds, workers, memory, rng):
    """Stationary normal scores z [rounds, workers]: z_t = memory z_(t-1) + sqrt(1 - memory^2) e_t."""
    z = rng.standard_normal((rounds, workers))
    for t in range(1, rounds):
        z[t] = memory * z[t - 1] + math.sqrt(1 - memory**2) * z[t]
    return z


def pareto(score, share):
    """The Pareto variable of least value 1 at a normal score: Q(z)^(-1 / a), Q the upper tail, a such that P(x > 2) = share."""
    from scipy.special import log_ndtr

    return np.exp(-log_ndtr(-score) * math.log(2) / math.log(1 / share))


def read(path):
    """The times of a CSV [rounds, workers] and the fingerprint of its bytes; a header is not expected, lines that start with # are left out."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"trace_file = {str(path)!r}: no such file; give a CSV of seconds, one line per round and one column per worker")
    return _read(path, path.stat().st_mtime_ns)


def memory(times):
    """Correlation of being slow, above twice the fastest of the round, in one round with the next, over workers and rounds [rounds, workers]."""
    slow = times > 2 * times.min(1, keepdims=True)
    share = slow.mean()
    both = (slow[1:] & slow[:-1]).mean() if len(times) > 1 else share**2
    return float((both - share**2) / (share - share**2)) if 0 < share < 1 else 0.0


@functools.lru_cache(maxsize=8)
def _read(path, _):
    data = path.read_bytes()
    times = []
    for number, row in enumerate(csv.reader(data.decode().splitlines()), 1):
        if not row or row[0].startswith("#"):
            continue
        try:
            times.append([float(cell) for cell in row])
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}: {error}; every cell is a time in seconds") from error
        if len(row) != len(times[0]) or not all(math.isfinite(t) and t > 0 for t in times[-1]):
            raise ConfigError(f"{path}, line {number}: expected {len(times[0])} positive times, as in the first line")
    if not times:
        raise ConfigError(f"{path}: holds no line of times; one line per round and one column per worker")
    return np.array(times), hashlib.sha256(data).hexdigest()[:16]


def _window(trace, rounds, workers, rng, tuning):
    """Consecutive rounds of a random choice of the file's workers."""
    times, fingerprint = read(trace.path)
    if fingerprint != trace.fingerprint:
        raise ConfigError(
            f"{trace.path}: its fingerprint is {fingerprint}, not {trace.fingerprint}: the file has changed since the study began"
        )
    half = len(times) // 2
    part = times[:half] if tuning else times[half:]
    if len(part) < rounds or part.shape[1] < workers:
        raise ConfigError(
            f"{trace.path}: half of it has {len(part)} rounds of {part.shape[1]} workers, the study needs {rounds} of {workers}; lower `jobs` or `workers`"
        )
    begin = int(rng.integers(len(part) - rounds + 1))
    return part[begin : begin + rounds, rng.permutation(part.shape[1])[:workers]]
