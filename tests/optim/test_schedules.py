"""Learning-rate schedules against optax's and closed forms, with every number traced."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_jax.optim import schedules
from scaling_jax.records import ConfigError, build

NAMES = ("cosine", "wsd", "constant")


@functools.cache
def compiled(name):
    """factor at all of `step` [n], with horizon, warm-up and the rest traced."""
    return jax.jit(jax.vmap(functools.partial(schedules.factor, name), in_axes=(0, None, None, None, None)))


def curve(name, steps, warmup=0.0, final=0.0, cooldown=0.2, points=64):
    """The first `points` steps, padded by the last, so that one program serves every horizon."""
    s = np.minimum(np.arange(points), steps - 1)
    return np.asarray(compiled(name)(s, np.int32(steps), *map(np.float32, (warmup, final, cooldown))))[:steps]


def optax_curve(name, steps, warm, final, cool):
    """The same from optax, whole numbers of warm-up and cool-down steps."""
    tail = {
        "cosine": lambda: optax.cosine_decay_schedule(1.0, steps - warm, alpha=final),
        "wsd": lambda: optax.join_schedules([optax.constant_schedule(1.0), optax.linear_schedule(1.0, final, cool)], [steps - warm - cool]),
        "constant": lambda: optax.constant_schedule(1.0),
    }[name]()
    if warm:
        ramp = optax.linear_schedule(1 / warm, 1.0, warm - 1) if warm > 1 else optax.constant_schedule(1.0)
        tail = optax.join_schedules([ramp, tail], [warm])
    return np.array([tail(s) for s in range(steps)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("steps", "warm", "final", "cool"), [(32, 8, 0.1, 16), (64, 0, 0.0, 8), (16, 1, 0.5, 4)])
def test_equals_optax(name, steps, warm, final, cool):
    got = curve(name, steps, warm / steps, final, cool / steps)
    np.testing.assert_allclose(got, optax_curve(name, steps, warm, final, cool), atol=1e-6)


@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_cosine_is_optaxs_warm_up_cosine(warmup):
    """From the end of warm-up on; optax warms up from a given rate, ours from one w-th of the peak."""
    steps, warm = 40, int(40 * warmup)
    theirs = optax.warmup_cosine_decay_schedule(1.0, 1.0, warm, steps, end_value=0.1)
    np.testing.assert_allclose(curve("cosine", steps, warmup, 0.1)[warm:], [theirs(s) for s in range(warm, steps)], atol=1e-6)


fractions = st.floats(0.0, 1.0, width=32)


@settings(max_examples=80)
@given(st.sampled_from(NAMES), st.integers(1, 64), fractions, fractions, fractions)
def test_closed_form(name, steps, warmup, final, cooldown):
    """The docstring in float64, fractional warm-ups and overlaps with the cool-down included."""
    s, S, w, c = np.arange(steps), float(steps), warmup * steps, cooldown * steps
    want = np.minimum(1.0, (s + 1) / max(w, 1.0))
    if name == "cosine":
        u = np.clip((s - w) / max(S - w, 1.0), 0, 1)
        want = want * (final + (1 - final) * (1 + np.cos(np.pi * u)) / 2)
    if name == "wsd":
        want = want * np.where(s < S - c, 1.0, final + (1 - final) * np.minimum(1, (S - s) / max(c, 1.0)))
    got = curve(name, steps, warmup, final, cooldown)
    np.testing.assert_allclose(got, want, atol=2e-6)
    assert (0 < got).all() and (got <= 1).all()  # no step is lost


@pytest.mark.parametrize("name", NAMES)
def test_every_number_is_traced_and_members_differ(name):
    """A cohort of three horizons in one program: what optax's own schedules refuse."""
    steps, warmup = jnp.array([10, 20, 40]), jnp.array([0.1, 0.2, 0.0])
    got = jax.vmap(lambda S, w: schedules.factor(name, 7, S, w, 0.1, 0.3))(steps, warmup)
    np.testing.assert_allclose(got, [curve(name, int(S), w, 0.1, 0.3)[7] for S, w in zip(steps, warmup, strict=True)], rtol=1e-6)
    assert got.dtype == jnp.float32


def test_a_schedule_stretches_with_its_horizon():
    for name in NAMES:
        short, long = curve(name, 16, final=0.1, cooldown=0.5), curve(name, 64, final=0.1, cooldown=0.5)
        np.testing.assert_allclose(long[::4], short, atol=1e-6)


def test_refusals():
    with pytest.raises(ConfigError, match="config.name = 'cosin': not one of 'cosine', 'wsd', 'constant'"):
        build(schedules.ScheduleConfig, {"name": "cosin"})
    for name in ("warmup", "final", "cooldown"):
        with pytest.raises(ConfigError, match=f"config.{name} = -0.1: must be at least 0.0"):
            build(schedules.ScheduleConfig, {name: -0.1})
        with pytest.raises(ConfigError, match=f"config.{name} = 1.1: must be at most 1.0"):
            build(schedules.ScheduleConfig, {name: 1.1})
