"""The gradients that are coded: real ones, of small networks trained on labels that another network gives.

Several models are trained in turn: job t is a step of model t mod M on a fresh batch, so a gradient may come T < M rounds late.
"""

from dataclasses import dataclass

import numpy as np

INPUTS, HIDDEN, CLASSES = 12, 12, 4
RATE = 0.5  # of plain gradient descent


@dataclass(frozen=True)
class Batches:
    """Inputs [jobs, batch, INPUTS] and labels [jobs, batch] of all jobs, and those held out."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def batches(jobs, batch, seed, held_out=512):
    """Normal inputs, labels drawn from the softmax of a random network of the same shape, with three times its weights."""
    rng = np.random.default_rng([seed, 19])
    teacher = {name: 3 * w for name, w in start(rng).items()}
    x = rng.standard_normal((jobs * batch + held_out, INPUTS))
    logits = forward(teacher, x)[1]
    y = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    cut = jobs * batch
    return Batches(x[:cut].reshape(jobs, batch, -1), y[:cut].reshape(jobs, batch), x[cut:], y[cut:])


def start(rng):
    """Weights w1 [INPUTS, HIDDEN], b1, w2 [HIDDEN, CLASSES], b2."""
    w1 = rng.standard_normal((INPUTS, HIDDEN)) / np.sqrt(INPUTS)
    w2 = rng.standard_normal((HIDDEN, CLASSES)) / np.sqrt(HIDDEN)
    return {"w1": w1, "b1": np.zeros(HIDDEN), "w2": w2, "b2": np.zeros(CLASSES)}


def forward(weights, x):
    """(tanh(x w1 + b1), logits)."""
    hidden = np.tanh(x @ weights["w1"] + weights["b1"])
    return hidden, hidden @ weights["w2"] + weights["b2"]


def loss(weights, x, y):
    """Mean cross-entropy in nats."""
    logits = forward(weights, x)[1]
    top = logits.max(1, keepdims=True)
    return float(np.mean(np.log(np.exp(logits - top).sum(1)) + top[:, 0] - logits[np.arange(len(y)), y]))


def gradients(weights, x, y):
    """The gradient of each sample's loss, flat [batch, parameters] in the order w1, b1, w2, b2."""
    hidden, logits = forward(weights, x)
    out = np.exp(logits - logits.max(1, keepdims=True))
    out /= out.sum(1, keepdims=True)
    out[np.arange(len(y)), y] -= 1
    back = out @ weights["w2"].T * (1 - hidden**2)
    outer = lambda a, b: (a[:, :, None] * b[:, None, :]).reshape(len(y), -1)
    return np.concatenate([outer(x, back), back, outer(hidden, out), out], axis=1)


def chunks(samples, shares):
    """Sums over consecutive pieces of samples [batch, parameters], in proportion to `shares` [K] as far as whole samples go: [K, parameters]."""
    ends = np.rint(np.cumsum(shares) / np.sum(shares) * len(samples)).astype(int)
    begins = np.concatenate([[0], ends[:-1]])
    out = np.zeros((len(ends), samples.shape[1]))
    full = ends > begins  # with more chunks than samples some are empty
    out[full] = np.add.reduceat(samples, begins[full], axis=0)
    return out


def step(weights, gradient, batch):
    """Weights after a step of gradient descent along the mean gradient."""
    out, at = {}, 0
    for name, w in weights.items():
        out[name] = w - RATE / batch * gradient[at : at + w.size].reshape(w.shape)
        at += w.size
    return out


def train(data, models, gradient_of, seed):
    """Mean held-out loss, in nats, of `models` networks, job t being a step of model t mod models; `gradient_of(t, samples)` sums over samples.

    Returns:
      (loss before, loss after).
    """
    networks = [start(np.random.default_rng([seed, 23, m])) for m in range(models)]
    held_out = lambda: float(np.mean([loss(w, data.test_x, data.test_y) for w in networks]))
    before = held_out()
    for t, (x, y) in enumerate(zip(data.x, data.y, strict=True)):
        m = t % models
        networks[m] = step(networks[m], gradient_of(t, gradients(networks[m], x, y)), len(y))
    return before, held_out()
