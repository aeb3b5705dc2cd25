"""Sampling against repeated full passes, a float64 reference, the definition of the nucleus, SciPy's tests and a known source."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scaling_jax.data import corpus, synthetic
from scaling_jax.inference import decode
from scaling_jax.models import transformer
from scaling_jax.records import ConfigError
from tests.models import reference

VOCAB, STEPS = 11, 6
CONFIG = transformer.Config(vocab=VOCAB, width=8, layers=2, heads=4, kv_heads=2)
SCANNED = transformer.Config(vocab=VOCAB, width=8, layers=2, heads=4, kv_heads=2, scan_layers=True)
PROMPTS = [[3], [1, 4, 1, 5, 9], [2, 6, 5], [3, 5, 8, 9, 7]]

init = jax.jit(transformer.init, static_argnums=0)
apply = jax.jit(transformer.apply, static_argnums=0)
jitted_nucleus, choose = jax.jit(decode.nucleus), jax.jit(decode.choose)


@functools.cache
def model(seed=0):
    """Parameters away from their start, with a head that makes predictions differ much."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda a: np.float32(a + 0.1 * rng.standard_normal(a.shape)), init(CONFIG, jax.random.key(seed)))
    return {**params, "head": jax.tree.map(lambda a: 4 * a, params["head"])}


def text(rows=3, columns=12):
    return np.random.default_rng(1).integers(0, VOCAB, (rows, columns)).astype(np.int32)


def nucleus_by_definition(p, top_p):
    """Smallest set of mass >= top_p, of those the heaviest, of those the first in order of ids; by trying every set."""
    sets = (s for size in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), size))
    best = min((s for s in sets if sum(p[i] for i in s) >= top_p), key=lambda s: (len(s), -sum(p[i] for i in s), s))
    return np.isin(np.arange(len(p)), best)


def log_distributions(z, temperature, top_p):
    """(log p, log q) of logits z, float64, one formula per line of the module's docstring."""
    log_softmax = lambda a: a - np.logaddexp.reduce(a)
    s = np.exp(log_softmax(z / temperature))
    order = sorted(range(len(z)), key=lambda v: (-s[v], v))
    size = next(n for n in range(1, len(z) + 1) if n == len(z) or s[order[:n]].sum() >= top_p)
    q = np.where(np.isin(np.arange(len(z)), order[:size]), s, 0)
    with np.errstate(divide="ignore"):
        return log_softmax(z), np.log(q / q.sum())


@pytest.mark.parametrize("config", [CONFIG, SCANNED], ids=["unscanned", "scanned"])
def test_cached_logits_equal_the_full_pass_at_every_position_whatever_the_pieces(config):
    tokens = text()
    full = np.asarray(apply(config, model(), tokens)[0])
    for pieces in ([12], [5, 7], [1] * 12):
        cache, parts, begin = transformer.start_cache(config, 3, 15), [], 0
        for size in pieces:
            logits, aux = apply(config, model(), tokens[:, begin : begin + size], cache=cache)
            cache, parts, begin = aux["cache"], [*parts, logits], begin + size
        assert np.abs(np.concatenate(parts, axis=1) - full).max() < 1e-5 * np.abs(full).max(), pieces


@pytest.mark.parametrize("config", [CONFIG, SCANNED], ids=["unscanned", "scanned"])
def test_padding_does_not_touch_the_logits(config):
    tokens, padding = text(), np.array([0, 3, 11])
    want = [np.asarray(apply(config, model(), tokens[row : row + 1, skip:])[0][0]) for row, skip in enumerate(padding)]
    outputs = []
    for other in (0, 7):  # what stands in the padding
        filled = np.where(np.arange(12)[None] < padding[:, None], other, tokens)
        cache, parts = transformer.start_cache(config, 3, 12, padding), []
        for begin, end in ((0, 5), (5, 12)):
            logits, aux = apply(config, model(), filled[:, begin:end], cache=cache)
            cache, parts = aux["cache"], [*parts, logits]
        outputs.append(np.concatenate(parts, axis=1))
        for row, skip in enumerate(padding):
            assert np.abs(outputs[-1][row, skip:] - want[row]).max() < 1e-5 * np.abs(want[row]).max()
    seen = np.arange(12)[None] >= padding[:, None]
    np.testing.assert_array_equal(outputs[0][seen], outputs[1][seen])


def test_a_full_cache_takes_no_more_tokens():
    with pytest.raises(ConfigError, match=r"cache = 4 columns: 5 tokens do not fit; start_cache\(length=5\)"):
        transformer.apply(CONFIG, model(), text(columns=5), cache=transformer.start_cache(CONFIG, 3, 4))
    cache = apply(CONFIG, model(), text(columns=4), cache=transformer.start_cache(CONFIG, 3, 4))[1]["cache"]
    assert np.isnan(apply(CONFIG, model(), text(columns=1), cache=cache)[0]).all()


def test_greedy_equals_the_argmax_of_repeated_full_passes():
    got = decode.sample(CONFIG, model(), PROMPTS, jax.random.key(0), steps=STEPS, temperature=0)
    for row, prompt in enumerate(PROMPTS):
        seen = list(prompt)
        for t in range(STEPS):
            padded = np.array([seen + [0] * (5 + STEPS - len(seen))])  # causal: what follows is not seen
            seen.append(int(np.argmax(apply(CONFIG, model(), padded)[0][0, len(seen) - 1])))
            assert seen[-1] == got.tokens[row, t]
    assert (got.lengths == STEPS).all() and not got.stopped.any() and not np.any(got.log_q)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8), (1.5, 0.5)])
def test_log_probabilities_equal_those_of_a_float64_reference(temperature, top_p):
    got = decode.sample(CONFIG, model(), PROMPTS, jax.random.key(1), steps=STEPS, temperature=temperature, top_p=top_p)
    for row, prompt in enumerate(PROMPTS):
        z = reference.logits(CONFIG, model(), np.array([*prompt, *got.tokens[row]]))[len(prompt) - 1 :]
        for t, token in enumerate(np.asarray(got.tokens[row])):
            log_p, log_q = log_distributions(z[t], temperature, top_p)
            np.testing.assert_allclose([got.log_p[row, t], got.log_q[row, t]], [log_p[token], log_q[token]], atol=2e-5)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (2.5, 1.0), (4.0, 0.8)])
def test_frequencies_are_those_of_softmax_and_of_the_renormalised_nucleus(temperature, top_p):
    count = 8000
    got = decode.sample(CONFIG, model(), [PROMPTS[1]] * count, jax.random.key(2), steps=1, temperature=temperature, top_p=top_p)
    z = reference.logits(CONFIG, model(), np.array(PROMPTS[1]))[-1]
    q = np.exp(log_distributions(z, temperature, top_p)[1])
    drawn = np.bincount(got.tokens[:, 0], minlength=VOCAB)
    assert not drawn[q == 0].any()
    often = q * count >= 5
    observed, expected = ([*a[often], a[~often].sum()] for a in (drawn, q * count))
    kept = [i for i, e in enumerate(expected) if e > 0]
    assert len(kept) > 2
    assert stats.chisquare([observed[i] for i in kept], [expected[i] for i in kept], sum_check=False).pvalue > 1e-3


def test_rows_and_steps_know_nothing_of_each_others_noise():
    config, params = chain(np.log([[0.2, 0.3, 0.4, 0.1]] * 4))  # the next token does not depend on the last
    tokens = decode.sample(config, params, [[0]] * 4000, jax.random.key(4), steps=2).tokens
    for one, other in ((tokens[:, 0], tokens[:, 1]), (tokens[::2, 0], tokens[1::2, 0])):
        pairs = np.zeros((4, 4))
        np.add.at(pairs, (one, other), 1)
        assert stats.chi2_contingency(pairs).pvalue > 1e-3


@given(st.lists(st.integers(0, 64), min_size=5, max_size=5), st.integers(1, 64))
def test_nucleus_is_the_smallest_set_by_definition(cuts, mass):
    p = np.diff([0, *sorted(cuts), 64]) / 64  # six probabilities, exact in float32, with zeros and ties among them
    np.testing.assert_array_equal(jitted_nucleus(np.float32(p), np.float32(mass / 64)), nucleus_by_definition(p, mass / 64))


def test_nucleus_of_equal_probabilities_takes_lower_ids_and_never_nothing():
    np.testing.assert_array_equal(jitted_nucleus(jnp.full(4, 0.25), 0.5), [True, True, False, False])
    np.testing.assert_array_equal(jitted_nucleus(jnp.full(4, 0.25), np.float32(1e-50)), [True, False, False, False])


def test_extreme_temperatures_stay_numbers():
    z, keys = jnp.array([[0.0, 3.0, 3.0, -80.0]]), jax.random.split(jax.random.key(0), 1)
    for temperature in (0.0, 1e-45, 1e-38, 1e-6, 1e30):
        token, log_p, log_q = choose(z, keys, np.float32(temperature), np.float32(0.9))
        assert np.isfinite(log_p).all() and np.isfinite(log_q).all()
        assert token[0] in (1, 2) or temperature > 1
        assert temperature > 1e-38 or (token[0] == 1 and log_q[0] == 0)  # greedy: the lower id of two


def chain(log_table):
    """(config, params) of a decoder whose next token follows row `token` of log_table [V, V] exactly: no layer adds to the one-hot embedding."""
    vocab = len(log_table)
    config = transformer.Config(vocab=vocab, width=vocab, layers=1, heads=2, norm_epsilon=1e-12)
    params = jax.tree.map(np.array, init(config, jax.random.key(0)))
    params["layers"]["attention"]["output"]["kernel"][:] = 0
    params["layers"]["mlp"]["down"]["kernel"][:] = 0
    params["embed"]["table"][:] = np.eye(vocab)
    params["head"]["kernel"][:] = log_table / np.sqrt(vocab)  # the norm scales a one-hot row to sqrt(V)
    return config, params


def test_text_drawn_from_a_known_source_has_its_transitions_and_its_entropy():
    data = corpus.DataConfig(source="markov", vocab=8, synthetic=synthetic.SyntheticConfig(order=1, zipf=0.7))
    table = synthetic.markov(data)[0]
    got = decode.sample(*chain(np.log(table)), [[0]] * 64, jax.random.key(3), steps=300)
    tokens = np.concatenate([np.zeros((64, 1), int), got.tokens], axis=1)
    counts = np.zeros((8, 8))
    np.add.at(counts, (tokens[:, :-1], tokens[:, 1:]), 1)
    expected = counts.sum(axis=1, keepdims=True) * table
    assert stats.chi2.sf(((counts - expected) ** 2 / expected).sum(), 8 * 7) > 1e-3
    losses = -np.asarray(got.log_p, np.float64)[:, 50:].mean(axis=1)  # the start is forgotten
    assert abs(stats.ttest_1samp(losses, synthetic.entropy_rate(data)).statistic) < 4
    np.testing.assert_allclose(got.log_p, np.log(table)[tokens[:, :-1], tokens[:, 1:]], atol=1e-4)


@pytest.mark.parametrize(
    ("stop", "lengths", "stopped"),
    [
        (4, [4, 1, 6], [True, True, True]),
        ([3, 4], [4, 9, 6], [True, True, True]),  # the second row's prompt ends in 3
        (np.array([7, 0]), [8, 5, 2], [True, True, True]),
        ([0, 6], [9, 9, 9], [False, False, False]),
    ],
)
def test_stop_tokens_end_a_row_and_the_prompt_does_not_count(stop, lengths, stopped):
    got = decode.sample(*counter(), [[0], [2, 3], [6]], jax.random.key(0), steps=9, temperature=0, stop=stop)
    np.testing.assert_array_equal(got.lengths, lengths)
    np.testing.assert_array_equal(got.stopped, stopped)
    for row, first in enumerate((1, 4, 7)):
        want = [(first + t) % 8 if t < lengths[row] else -1 for t in range(9)]
        np.testing.assert_array_equal(got.tokens[row], want)
        assert np.all(got.log_p[row, : lengths[row]] < 0) and not got.log_p[row, lengths[row] :].any()


def test_one_trace_serves_all_values_and_the_loop_ends_with_the_last_row(monkeypatch):
    traced, ran = [], []

    def counted(config, params, tokens, cache):
        traced.append(tokens.shape)
        jax.debug.callback(lambda _: ran.append(tokens.shape), cache["length"])
        return whole(config, params, tokens, cache)

    whole = transformer.apply
    monkeypatch.setattr(transformer, "apply", counted)
    config, params = counter(norm_epsilon=2e-12)  # a program that no other test has made
    values = [(0, 1.0, 4, 0), (0.01, 0.3, 4, 1), (0.02, 1.0, 6, 2)]
    lengths = []
    for temperature, top_p, stop, seed in values:
        prompts = [[5, 0, 1], [3, 1 + seed]]
        got = decode.sample(config, params, prompts, jax.random.key(seed), steps=99, temperature=temperature, top_p=top_p, stop=stop)
        lengths.append(int(got.lengths.max()))
    jax.effects_barrier()
    assert lengths == [3, 3, 5]
    assert len(traced) == len(set(traced)) == 2  # all of the prompts but their last column, and one column
    assert ran.count((2, 1)) == sum(lengths) and ran.count((2, 2)) == len(values)
    decode._program.cache_clear()


def counter(**fields):
    """A chain that counts, greedily 0, 1, ... 7, 0, 1, ..."""
    config, params = chain(9.0 * np.roll(np.eye(8), 1, axis=1))
    return dataclasses.replace(config, **fields), params


def draw(prompts, rows=None, params=None, key=5):
    return decode.sample(CONFIG, params or model(), prompts, jax.random.key(key), steps=STEPS, temperature=1.2, top_p=0.95, rows=rows)


def test_a_row_depends_on_its_prompt_its_number_and_the_key_only():
    got = draw(PROMPTS)
    for other in (draw(PROMPTS), draw([[7], PROMPTS[1], [1, 2], [0, 0, 0, 0, 0]])):
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b[1]), got, other)  # bit for bit: equal shapes
    back, part = draw(PROMPTS[::-1], [3, 2, 1, 0]), draw(PROMPTS[2:], [2, 3])
    for one, whole in ((back, jax.tree.map(lambda a: a[::-1], got)), (part, jax.tree.map(lambda a: a[2:], got))):
        np.testing.assert_array_equal(one.tokens, whole.tokens)
        np.testing.assert_allclose(one.log_q, whole.log_q, atol=1e-5)
    assert (draw(PROMPTS, key=6).tokens != got.tokens).any()
    assert (draw(PROMPTS[::-1]).tokens != back.tokens).any()


@pytest.mark.parametrize("how", ["loop", "vmap"])
def test_members_equal_lone_calls(how):
    models, keys = [model(0), model(1), model(2)], jax.random.split(jax.random.key(8), 3)
    options = dict(steps=STEPS, temperature=1.2, top_p=0.95, stop=4)
    got = decode.sample_members(CONFIG, models, PROMPTS, keys, how=how, **options)
    lone = [decode.sample(CONFIG, params, PROMPTS, key, **options) for params, key in zip(models, keys, strict=True)]
    assert any(a.lengths.min() < STEPS for a in lone) and (lone[0].tokens != lone[1].tokens).any()
    for a, b in zip(got, lone, strict=True):
        for name in ("tokens", "lengths", "stopped"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        for name in ("log_p", "log_q"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=0 if how == "loop" else 1e-5)


@pytest.mark.parametrize("average", decode.AVERAGES)
def test_a_team_draws_from_its_average(average):
    models = [model(0), model(1), model(2)]
    got = decode.sample_ensemble(CONFIG, models, PROMPTS, jax.random.key(9), average=average, steps=STEPS, top_p=0.9)
    for row, prompt in enumerate(PROMPTS):
        read = np.array([*prompt, *got.tokens[row]])
        z = np.stack([reference.logits(CONFIG, params, read)[len(prompt) - 1 :] for params in models])
        if average == "probabilities":
            z = z - np.logaddexp.reduce(z, axis=-1, keepdims=True)
            z = np.log(np.exp(z).mean(axis=0))
        else:
            z = z.mean(axis=0)
        for t, token in enumerate(np.asarray(got.tokens[row])):
            log_p, log_q = log_distributions(z[t], 1.0, 0.9)
            np.testing.assert_allclose([got.log_p[row, t], got.log_q[row, t]], [log_p[token], log_q[token]], atol=2e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": -0.5}, r"temperature = -0.5: must be finite and at least 0; 0 takes the likeliest"),
        ({"temperature": float("nan")}, r"temperature = nan: must be finite"),
        ({"temperature": "hot"}, r"temperature = 'hot': expected a number"),
        ({"top_p": 0.0}, r"top_p = 0.0: must be greater than 0 and at most 1; 1 keeps every token"),
        ({"top_p": 1.01}, r"top_p = 1.01: must be greater than 0"),
        ({"steps": 0}, r"steps = 0: must be an integer of at least 1"),
        ({"prompts": []}, r"prompts = \[\]: nothing to continue"),
        ({"prompts": [[1], []]}, r"prompts\[1\] = \[\]: expected one token or more; begin with the token that ends a document"),
        ({"prompts": [[1], [0.5]]}, r"prompts\[1\] = \[0.5\]: expected integers"),
        ({"prompts": [[1], [2, 11]]}, r"prompts\[1\]\[1\] = 11: no token; ids are 0 to 10"),
        ({"prompts": [[1], [-1]]}, r"prompts\[1\]\[0\] = -1: no token"),
        ({"length": 4}, r"length = 4: a prompt of 5 tokens and steps = 6 need 10 columns of the cache; set length to 10 or more"),
        ({"stop": 11}, r"stop\[0\] = 11: no token"),
        ({"stop": []}, r"stop = \[\]: expected a token id or a sequence of ids; None draws all steps"),
        ({"rows": [0, 1]}, r"rows = \[0, 1\]: expected 4 integers"),
    ],
)
def test_mistakes_are_named_before_any_work(change, message):
    arguments = {"prompts": PROMPTS, "steps": STEPS, **change}
    with pytest.raises(ConfigError, match=message):
        decode.sample(CONFIG, None, key=None, **arguments)


def test_mistakes_about_teams_members_and_models_are_named():
    with pytest.raises(ConfigError, match=r"average = 'losses': not one of 'logits', 'probabilities'"):
        decode.sample_ensemble(CONFIG, [None], PROMPTS, None, average="losses", steps=1)
    with pytest.raises(ConfigError, match=r"models = \[\]: a team needs at least one model"):
        decode.sample_ensemble(CONFIG, [], PROMPTS, None, steps=1)
    with pytest.raises(ConfigError, match=r"keys = 1 of them: 2 models need one each"):
        decode.sample_members(CONFIG, [None, None], PROMPTS, [None], steps=1)
    with pytest.raises(ConfigError, match=r"model.vocab = None: not yet bound to a corpus"):
        decode.sample(transformer.Config(), None, PROMPTS, None, steps=1)
    with pytest.raises(ConfigError, match=r"model.name = 'scaling_jax.models.layers': has no start_cache"):
        decode.sample(dataclasses.replace(CONFIG, name="scaling_jax.models.layers"), None, PROMPTS, None, steps=1)
