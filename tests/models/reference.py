"""An independent decoder in NumPy float64, written from the papers' equations, one token position at a time."""

import numpy as np


def rms_norm(x, scale, epsilon):
    return x / np.sqrt((x**2).mean() + epsilon) * scale


def rotate(x, position, theta):
    """Rotary embedding by complex multiplication: (x_i + i x_{i+C/2}) e^{i position theta^{-2i/C}}."""
    half = len(x) // 2
    turned = (x[:half] + 1j * x[half:]) * np.exp(1j * position * theta ** (-np.arange(half) / half))
    return np.concatenate([turned.real, turned.imag])


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def logits(c, params, tokens):
    """Logits [T, V] of one sequence of tokens."""
    p = _float64(params)
    stream = [p["embed"]["table"][t].copy() for t in tokens]
    for layer in range(c.layers):
        w = _layer(p["layers"], layer)
        normed = [rms_norm(x, w["attention_norm"]["scale"], c.norm_epsilon) for x in stream]
        a = w["attention"]
        queries, keys, values = [], [], []
        for t, x in enumerate(normed):
            q = np.tensordot(x, a["query"]["kernel"], 1)
            k = np.tensordot(x, a["key"]["kernel"], 1)
            if c.qk_norm:
                q = np.stack([rms_norm(h, a["query_norm"]["scale"], c.norm_epsilon) for h in q])
                k = np.stack([rms_norm(h, a["key_norm"]["scale"], c.norm_epsilon) for h in k])
            queries.append(np.stack([rotate(h, t, c.rope_theta) for h in q]))
            keys.append(np.stack([rotate(h, t, c.rope_theta) for h in k]))
            values.append(np.tensordot(x, a["value"]["kernel"], 1))
        group = c.heads // c.kv
        for t in range(len(tokens)):
            heads = []
            for h in range(c.heads):
                s = np.array([queries[t][h] @ keys[u][h // group] for u in range(t + 1)]) / np.sqrt(c.channels)
                weight = np.exp(s - s.max())
                weight /= weight.sum()
                heads.append(sum(weight[u] * values[u][h // group] for u in range(t + 1)))
            stream[t] = stream[t] + np.tensordot(np.stack(heads), a["output"]["kernel"], 2)
        for t in range(len(tokens)):
            x = rms_norm(stream[t], w["mlp_norm"]["scale"], c.norm_epsilon)
            up = x @ w["mlp"]["up"]["kernel"]
            hidden = silu(x @ w["mlp"]["gate"]["kernel"]) * up if c.mlp == "swiglu" else gelu(up)
            stream[t] = stream[t] + hidden @ w["mlp"]["down"]["kernel"]
    out = np.stack([rms_norm(x, p["final_norm"]["scale"], c.norm_epsilon) for x in stream])
    return out @ (p["embed"]["table"].T if c.tie_head else p["head"]["kernel"])


def _float64(tree):
    return {k: _float64(v) for k, v in tree.items()} if isinstance(tree, dict) else np.asarray(tree, np.float64)


def _layer(tree, i):
    return {k: _layer(v, i) for k, v in tree.items()} if isinstance(tree, dict) else tree[i]
