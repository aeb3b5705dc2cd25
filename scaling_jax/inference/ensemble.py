"""Ensembles: models averaged in logits or in probabilities, scored on a fixed set.

logits:         p = softmax(mean_k z_k)      (arXiv:2509.14786; a geometric mean of the members, normalised)
probabilities:  p = mean_k softmax(z_k)
losses:         no ensemble: the mean of the members' own losses; the ablation of both.
By convexity of logsumexp and of -log the first two are never worse than the third: a property test, not a claim.
Dims: M models, S teams, N windows, T time, V vocabulary.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from scaling_jax.train import objectives, state, step

HELD = 2**31  # bytes of logits held at once, unless one window has more
AVERAGES = ("logits", "probabilities", "losses")


def all_teams(count, largest=None, most=None, seed=0):
    """Teams of every size 1..`largest` out of `count` models, as tuples of indices; at most `most` sampled per size.

    Sampling is without replacement by a fixed seed; size `count` is one team.
    """
    rng = np.random.default_rng(seed)
    teams = []
    for size in range(1, (largest or count) + 1):
        every = list(itertools.combinations(range(count), size))
        if most is not None and len(every) > most:
            every = [every[i] for i in sorted(rng.choice(len(every), most, replace=False))]
        teams += every
    return teams


def team_losses(run, models, teams, windows, average="logits", chunk=None):
    """Loss of every team on `windows`, nats per token.

    Args:
      run: static RunConfig shared by the models. models: list of parameter trees.
      teams: tuples of indices into models. windows: tokens [N, T + 1].
      chunk: windows at a time; None: 16, or as many as have `HELD` bytes of logits.
    Returns:
      float64 [S].
    """
    if average not in AVERAGES:
        raise ValueError(f"average = {average!r}: not one of {', '.join(AVERAGES)}")
    weights_SM = np.zeros((len(teams), len(models)), np.float32)
    for row, team in enumerate(teams):
        weights_SM[row, list(team)] = 1.0 / len(team)
    predict, score = _programs(state.static(run), average)
    chunk = chunk or min(16, max(1, HELD // (4 * len(models) * (windows.shape[1] - 1) * run.model.vocab)))
    totals = np.zeros(len(teams))
    for begin in range(0, len(windows), chunk):
        part = windows[begin : begin + chunk]
        outputs = jnp.stack([predict(model, part[:, :-1]) for model in models])
        totals += np.asarray(score(outputs, weights_SM, part[:, 1:]), np.float64) * len(part)
    return totals / len(windows)


@functools.lru_cache(maxsize=16)
def _programs(run, average):
    """Jitted (predict: params, tokens -> what is averaged; score: outputs [M, N, T, V], weights [S, M], targets [N, T] -> loss [S])."""

    def predict(params, tokens):
        logits, _ = step.model_apply(run)(params, tokens)
        return logits.astype(jnp.float32)

    def score(outputs_MNTV, weights_SM, targets_NT):
        if average == "losses":
            losses_M = jax.lax.map(lambda z: objectives.token_losses(z, targets_NT).mean(), outputs_MNTV)
            return jnp.matmul(weights_SM, losses_M, precision="highest")
        log_p_MNTV = outputs_MNTV if average == "logits" else jax.nn.log_softmax(outputs_MNTV)

        def team(weights_M):
            if average == "logits":
                return objectives.token_losses(jnp.einsum("m,mntv->ntv", weights_M, log_p_MNTV, precision="highest"), targets_NT).mean()
            log_p_NT_M = jnp.take_along_axis(log_p_MNTV, targets_NT[None, ..., None], axis=-1)[..., 0]
            return -jax.nn.logsumexp(log_p_NT_M, axis=0, b=weights_M[:, None, None]).mean()  # exp alone underflows beyond 100 nats

        return jax.lax.map(team, weights_SM)

    return jax.jit(predict), jax.jit(score)
