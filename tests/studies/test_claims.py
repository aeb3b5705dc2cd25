"""Verdicts against closed forms: Welch's interval, exact permutation tests, Holm; and how often a verdict is wrong."""

import dataclasses
import itertools
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scaling_jax.laws import forms, statistics
from scaling_jax.studies import claims
from scaling_jax.studies.claims import Claim, permute
from scaling_jax.studies.rows import Data

RUNS = 400  # null worlds per error rate: its standard error at 5% is 1.1%


def table(rows):
    """Data of rows (dicts with a "run" or "runs"); runs of one cell agree in all columns but loss and seed."""
    frame, cells = pd.DataFrame(rows), {}
    if "run" in frame:
        frame["runs"] = [(run,) for run in frame.pop("run")]
        labels = frame.drop(columns=["runs", "loss", *[c for c in ("seed", "batch") if c in frame]])
        cells = {runs[0]: str(tuple(label)) for runs, label in zip(frame["runs"], labels.itertuples(index=False), strict=True)}
    return Data(frame, cells or {run: "team" for runs in frame["runs"] for run in runs})


def two(a, b):
    """One row per run, recipe a or b; seed i of one recipe pairs with seed i of the other."""
    return table([dict(run=f"{r}{i}", recipe=r, seed=i, loss=v) for r, values in (("a", a), ("b", b)) for i, v in enumerate(values)])


def grid(losses):
    """losses[width, recipe, seed], recipes a and b."""
    return table(
        [
            dict(run=f"{w}{'ab'[r]}{s}", width=w, recipe="ab"[r], seed=s, loss=losses[w, r, s])
            for w, r, s in itertools.product(*map(range, losses.shape))
        ]
    )


def gap(data):
    """Mean of b minus mean of a."""
    return data.where(recipe="b").mean() - data.where(recipe="a").mean()


def claim(statistic=gap, threshold=0.0, side=">", exchange=None, text="a is better", **kw):
    return Claim(text, statistic, threshold, side, permute("recipe") if exchange is None else exchange, {"optim.peak": 0.0}, **kw)


def judge(data, *args, permutations=400, **kw):
    (verdict,) = claims.judge([claim(*args, **kw)], data, permutations=permutations)
    return verdict


def normal(seed, sizes=(6, 6), shift=0.0, spread=0.1):
    rng = np.random.default_rng(seed)
    return [3 + rng.normal(i * shift, spread, n) for i, n in enumerate(sizes)]


# --- against closed forms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(4, 4), (6, 5), (3, 9)])
def test_two_recipes_have_the_welch_interval(sizes):
    a, b = normal(sizes, sizes, 0.2)
    test = stats.ttest_ind(b, a, equal_var=False)
    want = test.confidence_interval(0.95)
    found = judge(two(a, b), permutations=50)
    np.testing.assert_allclose([*found.ci95, found.dof, found.value], [want.low, want.high, test.df, b.mean() - a.mean()], rtol=1e-9)
    assert (found.n, found.seeds) == (sum(sizes), min(sizes))
    assert found.value / found.se == pytest.approx(test.statistic, rel=1e-9)


def test_only_runs_that_the_statistic_uses_count():
    """Of six runs a recipe, four are asked: n, seeds and the degrees of freedom are those of four."""
    a, b = normal(1, (6, 6), 0.2)
    found = judge(two(a, b), lambda d: gap(d.where(seed=range(4))), exchange=permute("recipe", where={"seed": range(4)}), permutations=50)
    test = stats.ttest_ind(b[:4], a[:4], equal_var=False)
    assert (found.n, found.seeds) == (8, 4) and found.dof == pytest.approx(test.df, rel=1e-9)
    assert found.se >= abs((b[:4].mean() - a[:4].mean()) / test.statistic)


@pytest.mark.parametrize("side, alternative", [(">", "greater"), ("<", "less")])
@pytest.mark.parametrize("seed", range(3))
def test_the_null_p_is_that_of_the_exact_test(side, alternative, seed):
    a, b = normal(seed, (5, 6), 0.06)
    difference = lambda x, y: y.mean() - x.mean()
    exact = stats.permutation_test((a, b), difference, n_resamples=np.inf, alternative=alternative).pvalue
    found = judge(two(a, b), side=side, permutations=3000).null_p
    assert abs(found - exact) <= 4 * math.sqrt(exact * (1 - exact) / 3000) + 1 / 3000


@pytest.mark.parametrize("seed", range(3))
def test_exchange_within_seeds_is_the_paired_test(seed):
    """Seeds move both recipes by far more than they differ: only the paired exchange sees it."""
    noise = np.random.default_rng(seed).normal(0, 1, 8)
    a, b = (x + noise for x in normal(seed, (8, 8), 0.15))
    exact = stats.permutation_test(
        (a, b), lambda x, y: (y - x).mean(), permutation_type="samples", n_resamples=np.inf, alternative="greater"
    ).pvalue
    data, paired = two(a, b), permute("recipe", within="seed")
    assert paired.arrangements(data) == 2**8
    found = judge(data, exchange=paired, permutations=3000).null_p
    assert abs(found - exact) <= 4 * math.sqrt(exact * (1 - exact) / 3000) + 1 / 3000
    assert judge(data, permutations=1000).null_p > 0.2 > found


def test_sides_mirror():
    data = two(*normal(0, (5, 5), 0.2))
    up, down = judge(data, threshold=0.01), judge(data, lambda d: -gap(d), threshold=-0.01, side="<")
    assert (up.verdict, up.null_p, up.ci95) == (down.verdict, down.null_p, (-down.ci95[1], -down.ci95[0]))
    assert judge(data, side="<").verdict == "fails"


# --- the four verdicts ---------------------------------------------------------------------------------------


def test_holds():
    found = judge(two(*normal(0, shift=0.5)), threshold=0.1, unit="nats", paper_value=0.4)
    assert found.verdict == "holds" and found.ci95[0] > 0.1 and found.adjusted_p < 0.05
    assert "lies beyond 0.1, and chance gives as much in" in found.reason and "recipe over all rows" in found.reason
    assert (found.claim, found.statistic, found.unit, found.paper_value, found.seeds_needed) == ("a is better", "gap", "nats", 0.4, None)


def test_fails():
    found = judge(two(*normal(0, shift=-0.5)))
    assert found.verdict == "fails" and found.ci95[1] < 0 and "lies on the other side of 0" in found.reason


def test_undecided_for_noise():
    found = judge(two(*normal(7, (4, 4), 0.1)), threshold=0.05)
    assert found.verdict == "undecided" and found.ci95[0] < 0.05 < found.ci95[1]
    assert "contains 0.05; if the effect is as measured" in found.reason and "(now 4)" in found.reason


def test_undecided_for_chance():
    """The interval clears a threshold far away, which the null hypothesis reaches as well."""
    found = judge(two(*normal(3)), threshold=-5)
    assert found.verdict == "undecided" and found.ci95[0] > -5 and found.null_p > 0.05
    assert "lies beyond -5, but chance gives as much in" in found.reason


def test_seeds_needed_are_about_right():
    """An undecided claim, judged again with the seeds it asked for in worlds where the effect is as measured."""
    found = judge(two(*normal(7, (4, 4), 0.1)), permutations=1000)
    assert found.verdict == "undecided" and 4 < found.seeds_needed < 60
    n, spread = found.seeds_needed, found.se * math.sqrt(4 / 2)  # se of a difference of two means of four
    again = [judge(two(*normal([7, i], (n, n), found.value, spread)), permutations=200).verdict for i in range(60)]
    assert 0.65 <= np.mean([v == "holds" for v in again]) <= 1.0


# --- not testable --------------------------------------------------------------------------------------------


def without_c(data):
    return data.where(recipe="c").mean()


@pytest.mark.parametrize(
    "sizes, statistic, reason",
    [
        ((1, 6), gap, "no interval: cell .* has one run and the statistic depends on it; needs 2 seeds or more"),
        ((6, 6), lambda d: 5.0, "no degrees of freedom: no run changes the statistic when left out"),
        ((3, 3), gap, r"smallest possible p is 0.05, not below 0.05: only 20 distinct relabelings of recipe over all rows"),
        ((6, 6), lambda d: math.nan, "the statistic is nan, not a finite number"),
        ((6, 6), without_c, "no row left to average loss over"),
        ((6, 6), lambda d: gap(d) if len(d) == 12 else math.inf, "no interval: without run a0 .* the statistic is inf"),
    ],
)
def test_not_testable(sizes, statistic, reason):
    found = judge(two(*normal(0, sizes, 0.5)), statistic)
    assert found.verdict == "not testable" and re.search(reason, found.reason), found.reason
    assert found.null_p is None and found.adjusted_p is None
    assert json.loads(json.dumps(claims.to_json(found), allow_nan=False))["verdict"] == "not testable"


def test_too_few_permutations_are_not_testable():
    found = judge(two(*normal(0, shift=0.5)), permutations=19)
    assert found.verdict == "not testable" and "only 19 permutations" in found.reason
    assert judge(two(*normal(0, shift=0.5)), permutations=20).verdict == "holds"


def test_a_law_without_a_degree_of_freedom():
    rows = [dict(run=f"{n}{s}", params=n, seed=s, loss=3 + 100 / n + 0.01 * s) for n in (10, 20, 40) for s in range(3)]
    found = judge(table(rows), lambda d: d.fit(forms.power)["E"], exchange=permute("params"))
    assert found.verdict == "not testable" and "3 distinct params; needs 4" in found.reason


def test_a_law_with_one():
    rng = np.random.default_rng(1)
    rows = [dict(run=f"{n}{s}", params=n, seed=s, loss=3 + 100 / n + rng.normal(0, 0.05)) for n in (10, 20, 40, 80, 160) for s in range(4)]

    def drop(data):
        law = data.fit(forms.power)
        return law.predict(params=10.0) - law.predict(params=160.0)

    found = judge(table(rows), drop, exchange=permute("params"), permutations=100)
    assert found.verdict == "holds" and found.n == 20
    assert found.ci95[0] < 100 / 10 - 100 / 160 < found.ci95[1]


def test_a_run_that_diverged():
    """Its loss is no number: no verdict, and no crash."""
    rows = [
        dict(run=f"{n}{s}", params=n, seed=s, loss=math.nan if (n, s) == (20, 1) else 3 + 100 / n)
        for n in (10, 20, 40, 80)
        for s in range(3)
    ]
    found = judge(table(rows), lambda d: d.fit(forms.power)["E"], exchange=permute("params"))
    assert found.verdict == "not testable" and "loss = nan in row 4" in found.reason


def test_a_mean_over_a_diverged_run():
    data = two([1.0, math.nan, 1.1], [2.0, 2.1, 2.2])
    assert judge(data).verdict == "not testable" and "loss is nan in 1 of 3 rows: a run diverged" in judge(data).reason
    found = judge(data, lambda d: d.by("recipe").min())
    assert found.verdict == "not testable" and "loss is nan at recipe = a: a run diverged" in found.reason


# --- families ------------------------------------------------------------------------------------------------


def test_holm_over_the_testable_claims():
    data = two(*normal(0, (5, 5), 0.12))
    family = [
        claim(),
        claim(text="by half", threshold=0.05, side=">"),
        claim(without_c, text="no rows"),
        claim(lambda d: gap(d) ** 3, text="cubed"),
    ]
    found = claims.judge(family, data, permutations=300)
    tested = [v for v in found if v.null_p is not None]
    assert [v.claim for v in found] == [c.text for c in family] and [v.claim for v in tested] == ["a is better", "by half", "cubed"]
    np.testing.assert_allclose([v.adjusted_p for v in tested], statistics.holm([v.null_p for v in tested]))
    assert all("after Holm over 3" in v.reason for v in tested if "chance" in v.reason)


def test_holm_can_take_a_verdict_away():
    data = two(*normal(1, (5, 5), 0.2, 0.13))
    alone = judge(data)
    assert alone.verdict == "holds" and 0.0025 < alone.null_p < 0.05, alone
    beside = claims.judge([claim(), *[claim(text=f"nothing {i}", statistic=lambda d: -gap(d)) for i in range(20)]], data, permutations=400)[
        0
    ]
    assert beside.null_p == alone.null_p and beside.verdict == "undecided" and "over 21" in beside.reason


def test_a_raw_p_is_its_own():
    """Neither order nor company moves it; the seed does."""
    data = two(*normal(3, (6, 6), 0.05))
    one, other = claim(), claim(text="another")
    p = lambda family, seed=0: {v.claim: v.null_p for v in claims.judge(family, data, 300, seed)}
    assert p([one, other]) == p([other, one]) and p([one])[one.text] == p([one, other])[one.text]
    assert p([one, other])[one.text] != p([one, other])[other.text] and p([one]) != p([one], seed=1)


# --- mistakes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("text", "", "text = '': say in one sentence"),
        ("text", None, "text = None: say in one sentence"),
        ("side", ">=", "claim 'a is better': side = '>=', expected '>' or '<'"),
        ("threshold", math.nan, "threshold = nan, expected a finite number"),
        ("threshold", math.inf, "threshold = inf, expected a finite number"),
        ("statistic", "gap", "statistic = 'gap', expected a function of Data"),
        ("exchange", "recipe within seed", "exchange = 'recipe within seed', expected what chance permutes"),
        ("ablation", {}, "ablation = {}, expected the overrides that remove the mechanism"),
        ("ablation", None, "ablation = None, expected the overrides"),
    ],
)
def test_a_wrong_claim(field, value, message):
    with pytest.raises(ValueError) as error:
        dataclasses.replace(claim(), **{field: value})
    assert message in str(error.value)


@pytest.mark.parametrize(
    "statistic, error, message",
    [
        (lambda d: d.mean("los"), KeyError, "rows have no column 'los'.*they have"),
        (lambda d: 1 / 0, ZeroDivisionError, "division by zero"),
        (lambda d: d["loss"], TypeError, r"claim 'a is better': the statistic gave shape \(12,\), expected one number"),
    ],
)
def test_a_bug_is_not_a_verdict(statistic, error, message):
    with pytest.raises(error, match=message):
        judge(two(*normal(0)), statistic)


def test_a_bug_that_only_a_relabeling_meets():
    original = two(*normal(0, shift=0.5))
    chosen = original["recipe"].tolist()

    def buggy(data):
        if len(data) == 12 and data["recipe"].tolist() != chosen:
            raise IndexError("a bug")
        return gap(data)

    with pytest.raises(IndexError, match="a bug"):
        judge(original, buggy)


def test_two_claims_with_one_text():
    with pytest.raises(ValueError, match="claims: 'a is better' is there twice"):
        claims.judge([claim(), claim()], two(*normal(0)))


@pytest.mark.parametrize(
    "frame, cells, message",
    [
        (dict(loss=[1.0]), {}, "frame has no column 'runs'"),
        (dict(runs=["r0"]), {"r0": "c"}, "runs = 'r0' in row 0: expected a tuple of at least one run id"),
        (dict(runs=[("r0",), ()]), {"r0": "c"}, r"runs = \(\) in row 1: expected a tuple"),
        (dict(runs=[("r0",), ("r0", "r1")]), {"r0": "c"}, "run 'r1' in row 1 has no cell: add it to `cells`"),
    ],
)
def test_wrong_rows(frame, cells, message):
    with pytest.raises(ValueError, match=message):
        Data(pd.DataFrame(frame), cells)
