"""Scores of a few runs on many tasks: aggregates that resist outliers, performance profiles, who improves on whom.

n runs, m tasks, N = n m scores; scores are normalised so that 1 means the same on every task (a human, the optimal policy).
Everything here takes a table [n, m], or `from_tasks` where tasks have different numbers of runs, and works along leading axes
too: `laws/bootstrap.py` gives every statistic an interval by evaluating it on many resampled tables at once.
Source of all definitions: Agarwal et al. 2021, arXiv:2108.13264, sections 4.1 to 4.3 and appendix A.3.
"""

from dataclasses import dataclass

import numpy as np

from scaling_jax.records import ConfigError

QUARTER = 0.25  # what the interquartile mean cuts from each side


@dataclass(frozen=True, eq=False)
class Scores:
    """A table of scores laid out task by task, so that tasks may have different numbers of runs.

    flat: float64 [..., N], all runs of the first task, then of the second; leading axes count resampled tables.
    runs: int [m], runs of each task.
    """

    flat: np.ndarray
    runs: np.ndarray

    @property
    def starts(self):
        """Where each task begins in `flat`: int [m]."""
        return np.cumsum(self.runs) - self.runs

    @property
    def tasks(self):
        """The scores of each task: m arrays [..., n_j]."""
        return np.split(self.flat, self.starts[1:], axis=-1)

    @property
    def task_means(self):
        """The mean score of each task: [..., m]."""
        return np.add.reduceat(self.flat, self.starts, axis=-1) / self.runs


def from_table(x):
    """Scores of a table [n, m]; what already are Scores stays as it is.

    Raises:
      ConfigError: another shape, or an entry that is not a finite number.
    """
    if isinstance(x, Scores):
        return x
    x = _numbers(x, "scores")
    if x.ndim != 2 or not x.size:
        remedy = "for one task write x[:, None]" if x.ndim == 1 else "for scores along training take `bootstrap.curve`"
        raise ConfigError(f"scores: shape {x.shape}, expected [runs, tasks] with one run and one task at least; {remedy}")
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        run, task = bad[0].tolist()
        raise ConfigError(f"scores[run {run}, task {task}] = {x[run, task]}{_NO_NUMBER}")
    return Scores(np.ascontiguousarray(x.T).reshape(-1), np.full(x.shape[1], x.shape[0]))


def from_tasks(columns):
    """Scores of m tasks given one by one, each a sequence of the scores of its runs: tasks may have different numbers of them.

    A task with more runs weighs more in the interquartile mean, the optimality gap and the profile over runs, which pool all
    scores; task means, and so mean and median, weigh tasks alike.

    Raises:
      ConfigError: a task without runs, or an entry that is not a finite number.
    """
    columns = [_numbers(column, f"task {j}") for j, column in enumerate(columns)]
    if not columns:
        raise ConfigError("scores: no task; expected one sequence of scores per task")
    for j, column in enumerate(columns):
        if column.ndim != 1 or not column.size:
            raise ConfigError(f"task {j}: shape {column.shape}, expected the scores of its runs, one at least; drop a task without runs")
        if not np.isfinite(column).all():
            run = int(np.argmin(np.isfinite(column)))
            raise ConfigError(f"scores[run {run}, task {j}] = {column[run]}{_NO_NUMBER}")
    return Scores(np.concatenate(columns), np.array([len(column) for column in columns]))


_NO_NUMBER = (
    ": expected a finite number. A run that failed still has a score, that of the policy it ended with: leaving it out flatters the "
    "agent. Where a run was never made, leave it out with `from_tasks`, one sequence per task"
)


def _numbers(x, name):
    try:
        return np.asarray(x, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: not a table of numbers ({error}); rows of different length go to `from_tasks`, one per task") from error


def trimmed_mean(x, cut):
    """Mean of all N scores without the floor(cut N) lowest and as many highest: float, or [...] for leading axes."""
    if not 0 <= cut < 0.5:
        raise ConfigError(f"cut = {cut!r}: expected a share from 0 (the mean) to below 0.5 (the median), cut from each side")
    flat = from_table(x).flat
    size = flat.shape[-1]
    drop = int(cut * size)
    if not drop:
        return flat.mean(-1)[()]
    return np.partition(flat, (drop, size - drop - 1), axis=-1)[..., drop : size - drop].mean(-1)[()]


def iqm(x):
    """Interquartile mean: the mean of the middle half of all runs on all tasks, floor(N / 4) cut from each side."""
    return trimmed_mean(x, QUARTER)


def mean(x):
    """Mean over tasks of the mean over runs."""
    return from_table(x).task_means.mean(-1)[()]


def median(x):
    """Median over tasks of the mean over runs; biased at few runs, the median of noisy means not being that of the true ones."""
    return np.median(from_table(x).task_means, axis=-1)[()]


def optimality_gap(x, gamma=1.0):
    """How far scores fall short of gamma: gamma - mean of min(x, gamma) over all runs and tasks. Smaller is better."""
    return (gamma - np.minimum(from_table(x).flat, gamma).mean(-1))[()]


AGGREGATES = {"iqm": iqm, "median": median, "mean": mean, "optimality_gap": optimality_gap}


def aggregates(x):
    """All `AGGREGATES`, in their order, along a new last axis: [..., 4]."""
    x = from_table(x)
    return np.stack([aggregate(x) for aggregate in AGGREGATES.values()], axis=-1)


def improvement(x, y):
    """Probability that a run of x beats one of y on a task drawn at random; an even 0.5 where they do not differ.

    P = mean_j U_j / (n_j k_j), U_j = #{(a, b) : x_aj > y_bj} + #{ties} / 2, the Mann-Whitney statistic of task j
    """
    return by_task(x, y).mean(-1)[()]


def by_task(x, y):
    """The probability of improvement on each task: [..., m]."""
    x, y = from_table(x), from_table(y)
    if len(x.runs) != len(y.runs):
        raise ConfigError(f"x has {len(x.runs)} tasks and y has {len(y.runs)}: expected the same tasks, in the same order")
    return np.stack([_beats(a, b) for a, b in zip(x.tasks, y.tasks, strict=True)], axis=-1)


def _beats(a, b):
    a, b = a[..., :, None], b[..., None, :]
    return ((a > b).mean((-2, -1)) + (a >= b).mean((-2, -1))) / 2


def profile(x, taus):
    """Performance profile, the share of all runs on all tasks that score above tau: [..., len(taus)].

    F(tau) = mean 1{x_ij > tau}; it falls from 1 to 0, and its area from 0 up is the mean of max(x, 0).
    """
    return _above(from_table(x).flat, taus)


def profile_of_means(x, taus):
    """Performance profile of task means, the share of tasks whose mean is above tau: [..., len(taus)]; biased at few runs."""
    return _above(from_table(x).task_means, taus)


def _above(values, taus):
    taus = _numbers(taus, "taus")
    if taus.ndim != 1:
        raise ConfigError(f"taus: shape {taus.shape}, expected a list of thresholds")
    return np.stack([(values > tau).mean(-1) for tau in taus], axis=-1)
