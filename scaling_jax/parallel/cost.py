"""What a run costs before it runs: FLOPs, bytes, seconds; and the peak a device is measured against."""

import functools
import time
from dataclasses import dataclass

from scaling_jax import config as cfg
from scaling_jax.parallel import members

# Dense bfloat16 peaks in FLOP/s per chip, from the vendors' data sheets (no sparsity).
PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}
# What a step is first expected to cost: share of the peak, and seconds of overhead, by platform (CPU: least squares over
# the 63 cohorts of a study, widths 8 to 48, on two cores; elsewhere a guess until a run has been timed).
EXPECTED = {"cpu": (0.15, 2.7e-3)}
_EXPECTED_ELSEWHERE = (0.35, 1e-3)


@dataclass(frozen=True)
class Cost:
    """Parameters, training FLOPs (causal-half convention), tokens and bytes of one run."""

    parameters: int
    flops: float
    tokens: int
    bytes: int


def of_run(run):
    """Cost of a bound run: flops = 3 x forward per token x tokens; bytes = 16 per parameter (weights, gradient, two moments) and the logits."""
    model = cfg.component(run.model.name, cfg.MODELS)
    count = model.parameters(run.model).total
    tokens = run.train.steps * run.data.batch * run.data.sequence
    micro = run.data.batch // run.train.accumulate * run.data.sequence
    activations = 4 * micro * (3 * run.model.vocab + 24 * getattr(run.model, "width", 0) * getattr(run.model, "layers", 0))
    return Cost(count, 3.0 * model.flops(run.model, run.data.sequence) * tokens, tokens, 16 * count + activations)


@functools.cache
def peak():
    """(FLOP/s, source) of the first device: the vendor's figure where known, else a float32 matmul measured here."""
    import jax
    import jax.numpy as jnp

    kind = jax.devices()[0].device_kind
    for name, value in PEAKS.items():
        if kind.lower().startswith(name.lower()):
            return value, f"{kind}, vendor's bfloat16 peak"
    a = jnp.ones((1024, 1024), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        product(a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * 1024**3 / best, f"{kind}, float32 matmul measured here"


def expected_seconds(runs):
    """Seconds the bound `runs` of one cohort should take: sum(FLOPs / (share x peak) + steps x overhead) / members computing at once."""
    import jax

    share, overhead = EXPECTED.get(jax.default_backend(), _EXPECTED_ELSEWHERE)
    together = members.at_once(members.resolve(runs[0].train.members), len(runs))
    return sum(of_run(run).flops / (peak()[0] * share) + run.train.steps * overhead for run in runs) / together


def people(value, unit=""):
    """1234567 -> '1.23M'."""
    for size, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:  # what rounds up to 1 of the next letter
            return f"{value / size:.3g}{letter}{unit}"
    return f"{value:.3g}{unit}"


def duration(seconds):
    """75 -> '1 min 15 s'."""
    seconds = int(round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    return f"{seconds // 60} min {seconds % 60:02d} s" if seconds < 3600 else f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
