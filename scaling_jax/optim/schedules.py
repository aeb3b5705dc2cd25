"""Learning-rate schedules whose every number may be traced, so that runs of one cohort differ in them.

(optax's schedules want concrete horizons.) s is the step from 0, S the number of steps, w the warm-up steps.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from scaling_jax.records import field


@dataclass(frozen=True)
class ScheduleConfig:
    """Shape of the learning rate over a run; fractions are of the whole run."""

    name: str = field("cosine", choices=("cosine", "wsd", "constant"))
    warmup: float = field(0.05, at_least=0.0, at_most=1.0, doc="fraction of the run in linear warm-up")
    final: float = field(
        0.0, at_least=0.0, at_most=1.0, doc="learning rate at the end of the run, just past its last step, as a fraction of the peak"
    )
    cooldown: float = field(0.2, at_least=0.0, at_most=1.0, doc="fraction of the run in linear decay (wsd only)")


def factor(name, step, steps, warmup, final, cooldown):
    """Learning rate at `step` as a fraction of its peak.

    Warm-up: (s + 1) / w for s < w = warmup * S. Then, with u = (s - w) / (S - w):
    cosine: final + (1 - final) (1 + cos(pi u)) / 2; wsd: 1 until the last cooldown * S steps, then linear to final
    (arXiv:2404.06395); constant: 1.
    """
    s, S = jnp.asarray(step, jnp.float32), jnp.asarray(steps, jnp.float32)
    w = warmup * S
    ramp = jnp.minimum(1.0, (s + 1.0) / jnp.maximum(w, 1.0))
    if name == "constant":
        return ramp
    if name == "cosine":
        u = jnp.clip((s - w) / jnp.maximum(S - w, 1.0), 0.0, 1.0)
        return ramp * (final + (1.0 - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * u)))
    c = cooldown * S
    left = jnp.clip((S - s) / jnp.maximum(c, 1.0), 0.0, 1.0)
    return ramp * (final + (1.0 - final) * left)
