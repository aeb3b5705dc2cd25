"""What a simulation unit runs: `search` times many designs on one trace, `compete` runs chosen ones, gradients and all."""

from dataclasses import dataclass

import numpy as np

from scaling_jax.records import ConfigError, field

from . import codes, schedule, traces, workload
from .codes import Design
from .traces import Trace

EXACT = 1e-9  # largest relative error of a decoded gradient; see codes.decoder for what is usual


@dataclass(frozen=True)
class Search:
    """Designs of one scheme, timed on one trace. slope: seconds per unit of load; models: trained in turn, which bounds T."""

    trace: Trace = field(Trace)
    scheme: str = field("GC", choices=codes.SCHEMES)
    workers: int = field(32, at_least=2)
    jobs: int = field(60, at_least=1)
    models: int = field(4, at_least=1)
    slope: float = field(2.2, at_least=0.0)
    wait: str = field("all", choices=("all", "enough"))
    mus: tuple[float, ...] = field((1.0,), at_least=0.0)


def candidates(scheme, n, models, mus):
    """The designs searched: every s up to n / 2, and every (B, W, lambda) whose delay T allows the models to be trained in turn."""
    few = [k for k in range(1, n + 1) if k <= 12 or k % max(1, n // 16) == 0 or k >= n - 1]
    if scheme == "GC":
        shapes = [dict(s=s) for s in few if s <= n // 2]
    elif scheme == "SR-SGC":  # of all lambda with the same s the largest tolerates most
        windows = [(B, x) for B in range(1, models) for x in (1, 2)]
        shapes = [dict(B=B, W=x * B + 1, lam=min(n, s * (x + 1))) for B, x in windows for s in few if s <= n // 2]
        shapes = [shape for i, shape in enumerate(shapes) if shape not in shapes[:i]]
    elif scheme == "M-SGC":
        windows = [(B, W) for W in range(2, models + 1) for B in range(1, W) if W - 2 + B <= models - 1]
        shapes = [dict(B=B, W=W, lam=lam) for B, W in windows for lam in few]
    else:
        shapes = [{}]
    return [Design(scheme, mu=float(mu), **shape) for shape in shapes for mu in mus]


def search(settings, seed):
    """{design in words: seconds until all jobs are done} for all candidates."""
    every = candidates(settings.scheme, settings.workers, settings.models, settings.mus)
    delays = traces.draw(settings.trace, settings.jobs + settings.models, settings.workers, seed, tuning=True)
    return {codes.name(one): schedule.run(one, delays, settings.jobs, settings.slope, settings.wait).total for one in every}


@dataclass(frozen=True)
class Contest:
    """One design of each scheme on the same trace, with real gradients."""

    trace: Trace = field(Trace)
    gc: Design = field(Design("GC", s=1))
    srsgc: Design = field(Design("SR-SGC", lam=1))
    msgc: Design = field(Design("M-SGC", lam=1))
    workers: int = field(32, at_least=2)
    jobs: int = field(60, at_least=1)
    models: int = field(4, at_least=1)
    slope: float = field(2.2, at_least=0.0)
    wait: str = field("all", choices=("all", "enough"))
    batch: int = field(256, at_least=1)


def compete(settings, seed):
    """A row per scheme: seconds, load, how often the master waited, and how exact its gradients are.

    Raises:
      RuntimeError: a decoded gradient that is not the sum over all samples. ConfigError: a delay that the models do not allow.
    """
    delays = traces.draw(settings.trace, settings.jobs + settings.models, settings.workers, seed)
    data = workload.batches(settings.jobs, settings.batch, seed)
    before, plain = workload.train(data, settings.models, lambda t, samples: samples.sum(0), seed)
    rows = [
        {"loss_before": before, "loss_plain": plain} | _one(design, settings, delays, data, plain, seed) for design in _designs(settings)
    ]
    gc = next(row["time"] for row in rows if row["scheme"] == "GC")
    slow = delays > 2 * delays.min(1, keepdims=True)
    return {
        "rows": [row | {"saved_against_gc": 1 - row["time"] / gc} for row in rows],
        "slow_share": float(slow.mean()),
        "slow_after_slow": float((slow[1:] & slow[:-1]).sum() / max(1, slow[:-1].sum())),
    }


def _designs(settings):
    return Design("uncoded", mu=settings.gc.mu), settings.gc, settings.srsgc, settings.msgc


def _one(design, settings, delays, data, plain, seed):
    if codes.delay(design) >= settings.models:
        raise ConfigError(
            f"models = {settings.models}: {codes.name(design)} decodes {codes.delay(design)} rounds late, so {codes.delay(design) + 1} models or more must be trained in turn"
        )
    n, plan = settings.workers, schedule.run(design, delays, settings.jobs, settings.slope, settings.wait)
    worst = 0.0

    def decoded(t, samples):
        nonlocal worst
        found, full = decode(design, n, plan.answers[t], samples), samples.sum(0)
        worst = max(worst, float(np.abs(found - full).max() / np.abs(full).max()))
        return found

    after = workload.train(data, settings.models, decoded, seed)[1]
    if not worst <= EXACT or not abs(after - plain) <= EXACT * plain:
        raise RuntimeError(f"{codes.name(design)}: gradients decoded to {worst:.1e}, losses {after!r} and {plain!r} without a code")
    return {
        "scheme": design.scheme,
        "design": codes.name(design),
        "time": plan.total,
        "seconds_per_job": plan.total / settings.jobs,
        "load": codes.load(design, n),
        "tolerated": codes.tolerated(design),
        "delay": codes.delay(design),
        "rounds": len(plan.seconds),
        "waited": plan.waited / len(plan.seconds),
        "stragglers": float(plan.stragglers.sum(1).mean()),
        "decode_error": worst,
        "loss": after,
        "loss_gap": abs(after - plain) / plain,
    }


def decode(design, n, answers, samples):
    """The gradient sum [parameters] that a master decodes out of what workers send about samples [batch, parameters].

    answers: as in `Schedule`, the workers that answered for each gradient code; M-SGC's other chunks came as they are.
    """
    s = codes.tolerated(design)
    if design.scheme != "M-SGC":
        return _decoded(n, s, answers[0], workload.chunks(samples, np.ones(n)))
    own, coded = n * (design.W - 1), n * len(answers)
    weight = s + 1 if coded else 1  # a worker's coded minitask touches s + 1 chunks and costs as much as one of its own
    parts = workload.chunks(samples, np.concatenate([np.full(own, float(weight)), np.ones(coded)]))
    groups = parts[own:].reshape(len(answers), n, samples.shape[1])
    return parts[:own].sum(0) + sum(_decoded(n, s, workers, group) for workers, group in zip(answers, groups, strict=True))


def _decoded(n, s, answered, parts):
    """Workers encode the chunks' gradients [n, parameters], the master combines the messages of those that answered."""
    messages = codes.cyclic_code(n, s)[list(answered)] @ parts
    return codes.decoder(n, s, answered) @ messages
