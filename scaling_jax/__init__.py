"""scaling_jax: a laboratory for scaling experiments in JAX."""

__version__ = "0.1.0"
