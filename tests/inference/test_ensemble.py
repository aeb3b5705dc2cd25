"""Teams against a naive float64 ensemble, and the convexity that makes averaging never worse than its members."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_jax import config as cfg
from scaling_jax.inference import ensemble
from scaling_jax.models import transformer
from scaling_jax.train import state

VOCAB, TIME, MODELS = 16, 5, 4
RUN = cfg.resolve(
    {
        "model": {"vocab": VOCAB, "width": 8, "layers": 1, "heads": 2},
        "data": {"source": "stdlib", "sequence": TIME, "batch": 2},
        "train": {"steps": 1},
    }
)
TEAMS = ensemble.all_teams(MODELS)


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def naive(outputs, team, targets, average):
    """Loss of one team from logits [M, N, T, V], float64, one formula per line of the module's docstring."""
    z = np.asarray(outputs, np.float64)[list(team)]
    if average == "logits":
        log_p = log_softmax(z.mean(0))
    elif average == "probabilities":
        log_p = np.logaddexp.reduce(log_softmax(z)) - np.log(len(team))
    else:
        log_p = log_softmax(z).mean(0)
    return -np.take_along_axis(log_p, targets[..., None], -1).mean()


init = jax.jit(transformer.init, static_argnums=0)


@functools.cache
def models(scale=5.0):
    """Members whose predictions differ much: parameters drawn and scaled up at the head."""
    out = [init(RUN.model, jax.random.key(seed)) for seed in range(MODELS)]
    return [{**p, "head": jax.tree.map(lambda a: scale * a, p["head"])} for p in out]


@functools.cache
def windows(n=5):
    return np.random.default_rng(0).integers(0, VOCAB, (n, TIME + 1)).astype(np.int32)


@functools.cache
def outputs(n=5):
    apply = jax.jit(transformer.apply, static_argnums=0)
    return np.stack([apply(RUN.model, p, windows(n)[:, :-1])[0] for p in models()])


@pytest.mark.parametrize("average", ensemble.AVERAGES)
def test_equals_the_naive_ensemble(average):
    found = ensemble.team_losses(RUN, models(), TEAMS, windows(), average, chunk=2)  # the last chunk has one window
    want = [naive(outputs(), team, windows()[:, 1:], average) for team in TEAMS]
    assert found.dtype == np.float64 and found.shape == (len(TEAMS),)
    np.testing.assert_allclose(found, want, rtol=2e-6)
    assert np.ptp(want[:MODELS]) > 0.1  # the members differ, or nothing was tested


@pytest.mark.parametrize("average", ensemble.AVERAGES)
def test_a_team_of_one_is_its_member(average):
    found = ensemble.team_losses(RUN, models(), [(k,) for k in range(MODELS)], windows(), average)
    own = [-np.take_along_axis(log_softmax(z.astype(np.float64)), windows()[:, 1:, None], -1).mean() for z in outputs()]
    np.testing.assert_allclose(found, own, rtol=2e-6)


@pytest.mark.parametrize("average", ensemble.AVERAGES)
def test_chunks_and_the_order_of_members_change_nothing(average):
    whole = ensemble.team_losses(RUN, models(), TEAMS, windows(), average, chunk=5)
    np.testing.assert_allclose(ensemble.team_losses(RUN, models(), TEAMS, windows(), average, chunk=2), whole, rtol=1e-6)
    turned = ensemble.team_losses(RUN, models(), [team[::-1] for team in TEAMS], windows(), average, chunk=5)
    np.testing.assert_array_equal(turned, whole)


def test_averaging_models_beats_their_mean_loss():
    losses = {average: ensemble.team_losses(RUN, models(), TEAMS, windows(), average) for average in ensemble.AVERAGES}
    several = np.array([len(team) > 1 for team in TEAMS])
    for average in ("logits", "probabilities"):
        assert (losses[average] <= losses["losses"] + 1e-6).all()
        assert (losses[average][several] < losses["losses"][several] - 1e-3).all()


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.floats(-2, 2.3), st.floats(-100, 100))
def test_convexity(seed, log_scale, shift):
    """Averaged logits and probabilities are never worse than the mean loss, whatever the logits: nearly flat, or certain and wrong."""
    rng = np.random.default_rng(seed)
    logits = (10**log_scale * rng.standard_normal((MODELS, 2, 3, VOCAB)) + shift).astype(np.float32)
    targets = rng.integers(0, VOCAB, (2, 3)).astype(np.int32)
    weights = np.zeros((len(TEAMS), MODELS), np.float32)
    for row, team in enumerate(TEAMS):
        weights[row, list(team)] = 1 / len(team)
    found = {}
    for average in ensemble.AVERAGES:
        score = ensemble._programs(state.static(RUN), average)[1]
        found[average] = np.asarray(score(jnp.asarray(logits), weights, targets), np.float64)
        want = [naive(logits, team, targets, average) for team in TEAMS]
        np.testing.assert_allclose(found[average], want, rtol=1e-5, atol=3e-4 if abs(shift) > 1 else 1e-5)
    slack = 1e-5 * (1 + np.abs(logits).max())
    assert (found["logits"] <= found["losses"] + slack).all()
    assert (found["probabilities"] <= found["losses"] + slack).all()


def test_an_average_that_does_not_exist():
    with pytest.raises(ValueError, match="average = 'weights': not one of logits, probabilities, losses"):
        ensemble.team_losses(RUN, models(), TEAMS, windows(), "weights")


# --- teams ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count, largest", [(1, None), (4, None), (5, 2), (6, 6)])
def test_all_teams_are_all_subsets(count, largest):
    teams = ensemble.all_teams(count, largest)
    sizes = range(1, (largest or count) + 1)
    assert teams == [team for size in sizes for team in itertools.combinations(range(count), size)]
    assert len(teams) == sum(math.comb(count, size) for size in sizes)


def test_most_samples_without_replacement():
    teams = ensemble.all_teams(8, most=10, seed=1)
    for size in range(1, 9):
        some = [team for team in teams if len(team) == size]
        assert len(some) == len(set(some)) == min(10, math.comb(8, size))
        assert all(list(team) == sorted(set(team)) and set(team) <= set(range(8)) for team in some)
    assert teams == ensemble.all_teams(8, most=10, seed=1) != ensemble.all_teams(8, most=10, seed=2)
