"""The stratified bootstrap: intervals of any statistic of a table of runs on tasks, each task's runs resampled by themselves.

It takes the spread of n runs for (n - 1) / n of what it is, however many tasks there are: a 95% interval of a mean over many tasks
covers P(|Z| < 1.96 sqrt((n - 1) / n)), 89% at three runs per task and 94% at ten; of one task alone, 75% at three.
Every draw comes from the seed given: one seed, one result, whatever the size of the chunks that are resampled at once.
Source: Agarwal et al. 2021, arXiv:2108.13264, section 4 and appendix A.5; Efron 1987 for BCa.
"""

from dataclasses import dataclass

import numpy as np

from scaling_jax.laws import reliability
from scaling_jax.laws.reliability import Scores, from_table
from scaling_jax.records import ConfigError

REPLICATES = 50_000  # the paper's, for aggregates; 2,000 do for profiles and probabilities of improvement
CHUNK = 2**19  # scores resampled at once: 4 MB, about a core's cache
METHODS = ("percentile", "basic", "bca")


@dataclass(frozen=True)
class Bootstrapped:
    """A statistic and its interval; arrays where the statistic is one. se: standard deviation of the replicates."""

    value: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    se: float | np.ndarray
    count: int
    method: str


def interval(statistic, *samples, count=REPLICATES, level=0.95, method="percentile", tasks=False, seed=0):
    """The statistic of one or more tables with its two-sided bootstrap interval; T on the samples, T* on `replicates`.

    percentile [q_a, q_b], basic [2 T - q_b, 2 T - q_a] with q the quantiles of T*, a = (1 - level) / 2 and b = 1 - a;
    bca moves a to Phi(z0 + (z0 + z_a) / (1 - c (z0 + z_a))), z0 = Phi^-1(share of T* below T, ties half), and b likewise, c the
    skewness of the stratified jackknife.

    Args:
      statistic: function of as many Scores as there are samples, each flat [k, N], to [k, ...]; those of
        `laws/reliability.py` fit, and so does what is made of them.
      samples: tables [n, m], or Scores; resampled independently of each other.
      count: replicates; level: coverage asked for.
      tasks: resample tasks too (the same ones in all samples): what other tasks of this kind would have given.
      seed: what numpy.random.SeedSequence takes.
    Raises:
      ConfigError: a task with one run, an unknown method, a count or level out of range.
    """
    if method not in METHODS:
        raise ConfigError(f"method = {method!r}: expected one of {', '.join(METHODS)}")
    if not 0 < level < 1:
        raise ConfigError(f"level = {level!r}: expected a share between 0 and 1, as 0.95")
    samples = tuple(from_table(sample) for sample in samples)
    draws = replicates(statistic, *samples, count=count, tasks=tasks, seed=seed)
    value = np.asarray(statistic(*samples), np.float64)
    ends = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        low, high = _bca(statistic, samples, value, draws, ends)
    else:
        low, high = np.quantile(draws, ends, axis=0)
        if method == "basic":
            low, high = 2 * value - high, 2 * value - low
    return Bootstrapped(value[()], low[()], high[()], draws.std(0, ddof=1)[()], count, method)


def replicates(statistic, *samples, count=REPLICATES, tasks=False, seed=0):
    """The statistic on `count` resampled tables: [count, ...]; arguments and errors as `interval`.

    In each replicate the runs of every task are drawn with replacement from that task's own, independently over tasks.
    """
    samples = tuple(from_table(sample) for sample in samples)
    _check(samples, count, tasks)
    draw = _resampler(samples, tasks, seed)
    step = max(1, CHUNK // max(sample.flat.size for sample in samples))
    return np.concatenate([np.asarray(statistic(*draw(min(step, count - i)))) for i in range(0, count, step)])


def resampled(x, count, seed=0):
    """`count` resampled tables of one sample, all at once: Scores with flat [count, N]."""
    x = from_table(x)
    _check((x,), count, False)
    return _resampler((x,), False, seed)(count)[0]


def curve(x, statistic=reliability.iqm, **options):
    """A sample-efficiency curve: the statistic at every evaluation during training, with its interval; arrays [f].

    Whole runs are resampled: within one replicate all evaluations see the same runs.

    Args:
      x: scores [n, m, f], of run, task and evaluation. options: those of `interval`.
    """
    x = np.asarray(x)
    if x.ndim != 3 or not x.size:
        raise ConfigError(f"scores: shape {x.shape}, expected [runs, tasks, evaluations]")
    each = [interval(statistic, x[..., f], **options) for f in range(x.shape[2])]  # one seed draws the same runs every time
    stacked = (np.array([getattr(one, name) for one in each]) for name in ("value", "low", "high", "se"))
    return Bootstrapped(*stacked, each[0].count, each[0].method)


def task_ranks(agents, count=REPLICATES, seed=0):
    """How likely each agent takes each rank on a task, if every agent is run once: [m, A, A], task, agent, rank (0 is best).

    One run of each agent is drawn per task and replicate; agents that tie share their ranks equally. The mean over tasks is the
    paper's rank comparison; of two agents, rank 0 has the probability of improvement.

    Args:
      agents: name -> scores of the same tasks.
    """
    agents = _agents(agents)
    seeds = np.random.SeedSequence(seed).spawn(len(agents))
    drawn = []
    for one, own in zip(agents.values(), seeds, strict=True):
        pick = (np.random.default_rng(own).random((count, len(one.runs))) * one.runs).astype(np.intp)
        drawn.append(one.flat[one.starts + pick])
    return _shares(np.stack(drawn)).transpose(2, 0, 1)


def ranks(agents, statistic=reliability.iqm, count=REPLICATES, larger_is_better=True, seed=0):
    """How often each agent takes each rank by an aggregate, over resampled tables: [A, A], agent, rank (0 is best)."""
    agents = _agents(agents)
    seeds = np.random.SeedSequence(seed).spawn(len(agents))
    drawn = np.stack([replicates(statistic, x, count=count, seed=own) for x, own in zip(agents.values(), seeds, strict=True)])
    return _shares((drawn if larger_is_better else -drawn)[..., None])[..., 0]


def _shares(values):
    """Mean over replicates of who has which rank: values [A, k, m] -> [A, A, m]; among t that tie each has 1 / t of each rank."""
    number = len(values)
    better = np.stack([(values > mine).sum(0) for mine in values])
    tied = np.stack([(values == mine).sum(0) for mine in values])
    return np.stack([(((better <= r) & (r < better + tied)) / tied).mean(1) for r in range(number)], axis=1)


def _agents(agents):
    agents = {name: from_table(x) for name, x in agents.items()}
    sizes = {name: len(x.runs) for name, x in agents.items()}
    if len(set(sizes.values())) != 1:
        raise ConfigError(f"agents: numbers of tasks {sizes}, expected the same tasks, in the same order, for every agent")
    return agents


def _check(samples, count, tasks):
    if not samples:
        raise ConfigError("samples: none given, expected a table [runs, tasks] or more")
    if count < 2:
        raise ConfigError(f"count = {count!r}: expected 2 replicates or more; {REPLICATES} give two digits of an interval's ends")
    for x in samples:
        if x.flat.ndim != 1:
            raise ConfigError(f"scores: flat has shape {x.flat.shape}, expected one table; it was resampled already")
        if x.runs.min() < 2:
            raise ConfigError(
                f"scores: task {int(x.runs.argmin())} has one run, and resampling one run shows no spread; give 2 runs or more of every task"
            )
        if tasks and len(set(x.runs.tolist())) > 1:
            raise ConfigError(
                f"tasks = True: tasks have {x.runs.min()} to {x.runs.max()} runs; resampling tasks needs equally many, give a table"
            )
    if tasks and len({len(x.runs) for x in samples}) > 1:
        raise ConfigError(f"tasks = True: samples have {[len(x.runs) for x in samples]} tasks, expected the same tasks in all")


def _resampler(samples, tasks, seed):
    """Function: number of tables -> that many of each sample; a stream of its own for every sample and for the tasks."""
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(root.entropy, spawn_key=root.spawn_key).spawn(len(samples) + 1)]
    places = [np.repeat(np.arange(len(x.runs)), x.runs) for x in samples]

    def draw(count):
        # floor(u n) is uniform to 1 part in 2^53 / n, and, unlike `integers`, may have a different n at every place
        chosen = (streams[-1].random((count, len(samples[0].runs))) * len(samples[0].runs)).astype(np.intp) if tasks else None
        out = []
        for x, place, rng in zip(samples, places, streams, strict=False):
            index = rng.random((count, x.flat.size))
            index *= x.runs[place]
            index = index.astype(np.intp)
            index += x.starts[place] if chosen is None else x.starts[chosen][:, place]
            out.append(Scores(x.flat[index], x.runs))
        return out

    return draw


def _bca(statistic, samples, value, draws, ends):
    from scipy.special import ndtr, ndtri

    below = ((draws < value).mean(0) + (draws <= value).mean(0)) / 2
    half = 0.5 / len(draws)  # all replicates on one side: half a replicate is on the other, the ends stay finite
    bias = ndtri(np.clip(below, half, 1 - half))
    skew = _acceleration(statistic, samples, value)
    moved = [ndtr(bias + (bias + z) / (1 - skew * (bias + z))) for z in ndtri(ends)]
    flat = draws.reshape(len(draws), -1)
    found = [
        np.array([np.quantile(column, q) for column, q in zip(flat.T, np.broadcast_to(at, value.shape).reshape(-1), strict=True)])
        for at in moved
    ]
    return [one.reshape(value.shape) for one in found]


def _acceleration(statistic, samples, value):
    """Skewness of the stratified jackknife: sum_j sum_i U_ij^3 / n_j^3 over 6 (sum_j sum_i U_ij^2 / n_j^2)^(3/2), U = (n_j - 1) (mean_i T_(-i) - T_(-i))."""
    cubes, squares = np.zeros((2, *value.shape))
    for which, x in enumerate(samples):
        for task, (start, runs) in enumerate(zip(x.starts, x.runs, strict=True)):
            kept = np.stack([np.delete(x.flat, start + i) for i in range(runs)])
            fewer = Scores(kept, x.runs - (np.arange(len(x.runs)) == task))
            others = [fewer if i == which else Scores(np.broadcast_to(y.flat, (runs, y.flat.size)), y.runs) for i, y in enumerate(samples)]
            left = np.asarray(statistic(*others))
            u = (runs - 1) * (left.mean(0) - left)
            cubes, squares = cubes + (u**3).sum(0) / runs**3, squares + (u**2).sum(0) / runs**2
    return np.where(squares > 0, cubes / np.where(squares > 0, 6 * squares**1.5, 1.0), 0.0)
