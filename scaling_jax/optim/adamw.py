"""AdamW: Adam with decoupled weight decay (arXiv:1711.05101); optax's own, with every number traced."""

from dataclasses import dataclass

import jax
import optax

from scaling_jax.records import field


@dataclass(frozen=True)
class Config:
    """Numbers of AdamW; the decay per step is learning_rate x weight_decay."""

    name: str = field("adamw")
    learning_rate: float = field(1e-3, above=0.0, doc="peak")
    weight_decay: float = field(0.1, at_least=0.0, doc="decoupled: multiplies the learning rate")
    b1: float = field(0.9, at_least=0.0, below=1.0)
    b2: float = field(0.95, at_least=0.0, below=1.0)
    epsilon: float = field(1e-8, above=0.0)


def rule(config, hyper, axes):
    """The optax transformation w <- w - rate (m / (sqrt(v) + eps) + weight_decay w), m and v bias-corrected.

    Args:
      hyper: the floats of `Config`, and "rate", the learning rate of this step; scalars, may be traced.
      axes: logical axes of the parameters; gains (one axis beside the layer) are not decayed.
    """
    decayed = jax.tree.map(lambda names: len([n for n in names if n != "layer"]) > 1, axes, is_leaf=lambda a: isinstance(a, tuple))
    return optax.chain(
        optax.scale_by_adam(hyper["b1"], hyper["b2"], hyper["epsilon"]),
        optax.add_decayed_weights(hyper["weight_decay"], decayed),
        optax.scale(-hyper["rate"]),
    )
