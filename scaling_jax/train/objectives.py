"""What a training step minimises: `objective(apply, params, batch, key) -> (loss, metrics)`.

`apply(params, tokens) -> (logits, aux)`. Dims: B batch, T time, V vocabulary.
"""

import jax
import jax.numpy as jnp


def token_losses(logits_BTV, targets_BT):
    """-log p(target) in nats at every position, float32 (float64 stays): logsumexp(z) - z[target]."""
    z_BTV = logits_BTV.astype(jnp.promote_types(logits_BTV.dtype, jnp.float32))
    picked_BT = jnp.take_along_axis(z_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(z_BTV, axis=-1) - picked_BT


def cross_entropy(apply, params, batch, key):
    """Mean next-token cross-entropy in nats per token; batch: tokens [B, T + 1]."""
    del key
    logits_BTV, _ = apply(params, batch[:, :-1])
    loss = token_losses(logits_BTV, batch[:, 1:]).mean()
    return loss, {"loss": loss}
