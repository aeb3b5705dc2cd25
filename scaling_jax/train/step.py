"""One training step and one evaluation of one member: the functions everything else dispatches."""

import functools

import jax
import jax.numpy as jnp
import optax

from scaling_jax import config as cfg
from scaling_jax.train import objectives
from scaling_jax.train import state as states

LOGITS = 2**30  # bytes of logits an evaluation holds at once, unless one window has more


def train_step(run, state, batch, hyper):
    """One optimizer step of one member.

    Args:
      run: static RunConfig. state: TrainState. batch: tokens [B, T + 1]. hyper: `state.hyper(run)`, traced.
    Returns:
      (state, metrics): loss in nats per token, grad_norm before clipping, learning_rate; float32 scalars.
    """
    objective = cfg.component(run.train.objective, cfg.OBJECTIVES)
    apply = model_apply(run)
    key = jax.random.fold_in(states.purpose_key(hyper["seed"], "objective"), state.step)

    def closure(params):
        return objective(apply, params, batch, key)[0]

    gradient, metrics = _gradient(objective, apply, state.params, batch, key, run.train.accumulate)
    norm = optax.tree.norm(gradient)
    if run.train.clip_norm is not None:
        gradient = jax.tree.map(lambda g: g * jnp.minimum(1.0, run.train.clip_norm / (norm + 1e-12)), gradient)
    rule = states.transformation(run, hyper, state.step)
    updates, opt_state = rule.update(gradient, state.opt_state, state.params, key=key, loss=closure, step=state.step)
    params = optax.apply_updates(state.params, updates)
    metrics = {**metrics, "grad_norm": norm, "learning_rate": states.learning_rate(run, hyper, state.step)}
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics


def evaluate(run, params, windows):
    """Mean next-token loss of one member on fixed windows [n, T + 1], nats per token, in chunks of equal size."""
    apply = model_apply(run)
    n, length = windows.shape
    chunk = min(n, 64, max(1, LOGITS // (4 * (length - 1) * run.model.vocab)))
    size = max(d for d in range(1, chunk + 1) if n % d == 0)

    def one(tokens):
        logits, _ = apply(params, tokens[:, :-1])
        return objectives.token_losses(logits, tokens[:, 1:]).mean()

    return jax.lax.map(one, windows.reshape(n // size, size, -1)).mean()


def model_apply(run):
    """`apply(params, tokens, **) -> (logits, aux)` of the run's model."""
    return functools.partial(cfg.component(run.model.name, cfg.MODELS).apply, run.model)


def _gradient(objective, apply, params, batch, key, accumulate):
    """Gradient and metrics of the mean loss, over `accumulate` micro-batches one after the other."""
    grad = jax.grad(lambda p, b, k: objective(apply, p, b, k), has_aux=True)
    if accumulate == 1:
        return grad(params, batch, key)
    parts = batch.reshape(accumulate, len(batch) // accumulate, *batch.shape[1:])

    def one(total, inputs):
        part, i = inputs
        out = grad(params, part, jax.random.fold_in(key, i))
        return jax.tree.map(jnp.add, total, out), None

    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(grad, params, parts[0], key))
    total, _ = jax.lax.scan(one, zeros, (parts, jnp.arange(accumulate)))
    return jax.tree.map(lambda a: a / accumulate, total)
