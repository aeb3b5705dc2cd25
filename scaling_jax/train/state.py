"""The state a training step carries, and the numbers of a member that its program takes as arguments."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from scaling_jax import config as cfg

PURPOSES = {"init": 0, "objective": 1}  # fold_in(seed, purpose), then step; append only


@struct.dataclass
class TrainState:
    """step: steps done. params, opt_state: trees. extra: state that takes no gradient; empty where unused."""

    step: jax.Array
    params: dict
    opt_state: tuple
    extra: dict = struct.field(default_factory=dict)


def purpose_key(seed, purpose):
    """The random key of one purpose of a run."""
    return jax.random.fold_in(jax.random.key(seed), PURPOSES[purpose])


def hyper(run):
    """The traced numbers of a bound run: optimizer and schedule floats, steps and seed, as NumPy scalars."""
    floats = lambda group: {name: np.float32(getattr(group, name)) for name in cfg.hyper_names(group)}
    return {
        "optimizer": floats(run.optimizer),
        "schedule": floats(run.schedule),
        "steps": np.int32(run.train.steps),
        "seed": np.uint32(run.seed),
    }


def static(run):
    """`run` without its traced numbers: equal for all runs that share a program, hashable, what jit compiles for."""
    blank = lambda group: dataclasses.replace(group, **{name: 0.0 for name in cfg.hyper_names(group)})
    data = dataclasses.replace(run.data, unique_tokens=None, subset_seed=0)
    train = dataclasses.replace(run.train, steps=None, epochs=None, log_every=1, checkpoint_every=1, evaluate_every=None, evaluate=())
    return dataclasses.replace(run, optimizer=blank(run.optimizer), schedule=blank(run.schedule), data=data, train=train, seed=0)


def start(run, hyper):
    """The state at step 0 of one member."""
    model = cfg.component(run.model.name, cfg.MODELS)
    params = model.init(run.model, purpose_key(hyper["seed"], "init"))
    return TrainState(step=jnp.int32(0), params=params, opt_state=transformation(run, hyper, 0).init(params))


def transformation(run, hyper, step):
    """The optimizer of `run` at `step`, an optax transformation that takes extra arguments."""
    import optax

    optimizer = cfg.component(run.optimizer.name, cfg.OPTIMIZERS)
    model = cfg.component(run.model.name, cfg.MODELS)
    rate = learning_rate(run, hyper, step)
    return optax.with_extra_args_support(optimizer.rule(run.optimizer, {**hyper["optimizer"], "rate": rate}, model.axes(run.model)))


def learning_rate(run, hyper, step):
    """The learning rate of `run` at `step`."""
    from scaling_jax.optim import schedules

    return hyper["optimizer"]["learning_rate"] * schedules.factor(run.schedule.name, step, hyper["steps"], **hyper["schedule"])
