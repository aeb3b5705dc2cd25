"""Statistical precipice: tasks against closed forms, agents against their textbook rules, statistics against brute force, your files."""

import csv
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scaling_jax import config as cfg
from scaling_jax.records import ConfigError
from scaling_jax.studies import runner, worlds
from scaling_jax.studies.rows import Data
from tests.studies.test_contract import planned

PATH = Path(__file__).resolve().parents[2] / "experiments" / "statistics" / "precipice" / "study.py"


@pytest.fixture(scope="module")
def study_module():
    return cfg.import_file(PATH)


@pytest.fixture(scope="module")
def parts(study_module):
    """The study's private modules, as the loaded study sees them."""
    import sys

    package = study_module.__name__.rpartition(".")[0]
    names = ("tasks", "learning", "experiment", "statistics", "yours")
    return {name: sys.modules[f"{package}.{name}"] for name in names}


@pytest.fixture(scope="module")
def tasks(parts):
    return parts["tasks"]


@pytest.fixture(scope="module")
def learning(parts):
    return parts["learning"]


@pytest.fixture(scope="module")
def statistics(parts):
    return parts["statistics"]


# --- tasks ---------------------------------------------------------------------------------------------------


def forward(suite, policy, task):
    """The expected return by following the distribution of states forward, one task at a time."""
    at, total = suite.start[task].copy(), 0.0
    states, actions, branches = suite.successor[task].shape
    for _ in range(suite.horizon[task]):
        at[suite.ends[task]] = 0.0
        total += (at[:, None] * policy[task] * suite.reward[task]).sum()
        after = np.zeros(states)
        for s, a, b in itertools.product(range(states), range(actions), range(branches)):
            after[suite.successor[task][s, a, b]] += at[s] * policy[task][s, a] * suite.probability[task][s, a, b]
        at = after
    return total


def test_backward_induction_is_the_walk_forward(tasks):
    suite, rng = tasks.draw(3, 4), np.random.default_rng(0)
    policy = rng.dirichlet(np.ones(tasks.ACTIONS), size=(4, tasks.STATES))
    np.testing.assert_allclose(tasks.returns(suite, policy), [forward(suite, policy, j) for j in range(4)], rtol=1e-12)


def test_returns_by_hand_without_noise(tasks):
    suite = tasks.draw(0, 16, noise=0.0)
    optimal, random = tasks.optimal_returns(suite), tasks.random_returns(suite)
    for j in range(0, 16, 4):  # a chain: walk up, then one per step
        length = int((suite.successor[j, :, :, 0] != np.arange(tasks.STATES)[:, None]).any(1).sum())
        assert optimal[j] == pytest.approx(suite.horizon[j] - (length - 1))
    for j in range(1, 16, 4):  # a grid: the shortest way, around the pit if need be
        side = suite.horizon[j] // 3  # height plus width
        assert optimal[j] == pytest.approx(1 - 0.02 * (side - 2))
    for j in range(2, 16, 4):  # a bandit: the best arm in each context, ten times
        means = suite.reward[j][suite.start[j] > 0]
        assert optimal[j] == pytest.approx(10 * means.max(1).mean()) and random[j] == pytest.approx(10 * means.mean())


def test_nothing_beats_the_optimal_return(tasks):
    suite, rng = tasks.draw(5, 12), np.random.default_rng(0)
    optimal = tasks.optimal_returns(suite)
    for _ in range(50):
        greedy = np.eye(tasks.ACTIONS)[rng.integers(tasks.ACTIONS, size=(12, tasks.STATES))]
        assert (tasks.returns(suite, greedy) <= optimal + 1e-12).all()
    assert (optimal - tasks.random_returns(suite) >= tasks.GAP).all()


def test_every_task_is_a_decision_process(tasks):
    suite = tasks.draw(1, 26)
    np.testing.assert_allclose(suite.probability.sum(-1), 1)
    np.testing.assert_allclose(suite.start.sum(-1), 1)
    assert (suite.probability >= 0).all() and (suite.successor >= 0).all() and (suite.successor < tasks.STATES).all()
    assert not suite.ends[np.arange(26), suite.start.argmax(-1)].any(), "an episode does not begin at its end"
    again, other = tasks.draw(1, 8), tasks.draw(2, 8)
    np.testing.assert_array_equal(again.reward, suite.reward[:8], "more tasks leave the first as they are")
    assert (other.reward != again.reward).any()


def test_simulated_episodes_earn_what_the_tables_say(tasks, learning):
    suite, rng = tasks.draw(0, 8), np.random.default_rng(0)
    policy = rng.integers(tasks.ACTIONS, size=(8, 1, tasks.STATES))
    episodes = learning.evaluate(suite, np.repeat(policy, 4000, axis=1), 1, rng)
    expected = tasks.returns(suite, np.eye(tasks.ACTIONS)[policy[:, 0]])
    assert (np.abs(episodes.mean(1) - expected) < 4 * episodes.std(1) / np.sqrt(4000) + 1e-9).all()


# --- agents --------------------------------------------------------------------------------------------------


def test_updates_are_the_textbooks(learning):
    """Two lanes, three actions; the first goes on to (1, 4, 2) and takes action 2, the second's episode has ended."""
    place, acted, reward, ended = np.array([0, 1]), np.array([0, 1]), np.array([1.0, 5.0]), np.array([False, True])
    ahead, action = np.array([[1.0, 4.0, 2.0], [9.0, 9.0, 9.0]]), np.array([2, 0])

    def after(kind, coin=0.0, other=None):
        tables = tuple(np.full((2, 3), 10.0) for _ in range(1 if other is None else 2))
        values = [ahead] if other is None else [ahead, np.broadcast_to(other, (2, 3))]
        learning._update(kind, tables, values, action, np.full(2, coin), (place, acted, reward, ended), 0.5, 0.9)
        return [table[[0, 1], [0, 1]].tolist() for table in tables]

    assert after("q") == after("ucb") == [[10 + 0.5 * (1 + 0.9 * 4 - 10), 10 + 0.5 * (5 - 10)]]
    assert after("sarsa") == [[10 + 0.5 * (1 + 0.9 * 2 - 10), 7.5]]
    other = np.array([7.0, 3.0, 6.0])
    assert after("double", 0.0, other) == [[10 + 0.5 * (1 + 0.9 * 3 - 10), 7.5], [10, 10]], "the first chooses 1, the second says 3"
    assert after("double", 0.9, other) == [[10, 10], [10 + 0.5 * (1 + 0.9 * 1 - 10), 7.5]], "the second chooses 0, the first says 1"


@pytest.mark.parametrize("kind", ["q", "sarsa", "double", "ucb"])
def test_agents_solve_what_is_easy(tasks, learning, kind):
    """Bandits without noise: every run ends on the best arm of every context."""
    suite = tasks.draw(0, 8, noise=0.0)
    bandits = type(suite)(*(getattr(suite, name)[[2, 6]] for name in suite.__dataclass_fields__))
    agent = getattr(learning.Training(), kind)
    policy = learning.learn(bandits, kind, agent, 5, 1500, 0.0, np.random.default_rng(0))
    for j in range(2):
        contexts = bandits.start[j] > 0
        assert (policy[j][:, contexts] == bandits.reward[j][contexts].argmax(1)).all()


def test_learning_longer_scores_higher_and_the_seed_decides(learning):
    training = learning.Training(tasks=8, steps=50)
    short, again, other = (learning.scores(training, 6, seed) for seed in (0, 0, 1))
    assert short.shape == (4, 6, 8)
    np.testing.assert_array_equal(short, again)
    assert (short != other).any()
    long = learning.scores(replace(training, steps=1500), 6, 0)
    assert (long.mean((1, 2)) > short.mean((1, 2)) + 0.1).all()


def test_the_optimal_policy_scores_one(tasks, learning):
    """A bandit without noise, solved by every run: what is left is the contexts' luck."""
    found = learning.scores(learning.Training(tasks=3, noise=0.0, steps=1500, discount=0.0, episodes=100), 40, 0)[:, :, 2]
    assert abs(found.mean() - 1) < 4 * found.std() / np.sqrt(found.size) + 1e-9


def test_walks_begin_where_the_task_says(tasks, learning):
    suite = tasks.draw(0, 8)
    lanes = learning.lay_out(suite, 4000)
    state = learning.begin(lanes, np.random.default_rng(0).random(lanes.first.size)).reshape(8, 4000)
    share = (state[..., None] == np.arange(tasks.STATES)).mean(1)
    np.testing.assert_allclose(share, suite.start, atol=0.03)


# --- statistics ----------------------------------------------------------------------------------------------


def planted(rng, experiments=30, pools=4, bias=0.0, spread=1.0, known=None):
    """Rows of made-up experiments of two agents: median and interquartile mean scatter around their true values."""
    rows, known = [], known or {"iqm": 0.5, "median": 0.8}
    for seed in range(experiments):
        for agent in ("q", "sarsa"):
            for name in ("iqm", "median"):
                value = known[name] + (bias if name == "median" else 0.0) + spread * rng.normal()
                ends = {"low": value - 1.5, "high": value + 1.5, "width": 3.0}
                rows.append(dict(kind="agent", seed=seed, n=3, agent=agent, aggregate=name, value=value, runs=(f"e{seed}",), **ends))
    for seed, agent, name in itertools.product(range(pools), ("q", "sarsa"), known):
        rows.append(dict(kind="pool", seed=seed, n=100, agent=agent, aggregate=name, value=known[name], runs=(f"p{seed}",)))
    frame = pd.DataFrame(rows).assign(suite=0)
    return Data(frame, {run: run[0] for (run,) in frame["runs"]})


def test_an_experiment_of_three_runs_is_the_first_three(parts):
    experiment, rng = parts["experiment"], np.random.default_rng(0)
    scores = rng.normal(0.5, 0.2, (4, 5, 6)) + 0.3 * np.arange(4)[:, None, None]  # every agent better than the one before
    rows = pd.DataFrame(experiment.summary(scores, experiment.Experiment(runs=(3, 5), replicates=200), 7))
    for n in (3, 5):
        part = rows[(rows["kind"] == "agent") & (rows["n"] == n)]
        for i, agent in enumerate(("q", "sarsa", "double", "ucb")):
            own, table = part[part["agent"] == agent].set_index("aggregate"), scores[i, :n]
            assert own.loc["iqm", "value"] == pytest.approx(stats.trim_mean(table, 0.25, axis=None))
            assert own.loc["optimality_gap", "value"] == pytest.approx(1 - np.minimum(table, 1).mean())
            assert (own["low"] <= own["value"]).all() and (own["high"] >= own["value"]).all()
    ranks = rows[rows["kind"] == "rank"]
    assert len(ranks) == 8 and (ranks[list(experiment.AHEAD)] == 0).all(axis=None), "the first of a pair is behind by every aggregate"


def test_disagreement_is_the_share_of_pairs_that_differ(parts, statistics):
    rng, ahead = np.random.default_rng(0), parts["experiment"].AHEAD
    rows = [
        dict(kind=kind, suite=0, n=3, aggregate="iqm", runs=(f"{s}",), **{name: float(rng.random() < 0.3) for name in ahead})
        for s in range(12)
        for kind in ("rank", "agent")
    ]
    data = Data(pd.DataFrame(rows), {str(s): "c" for s in range(12)})
    table = np.array([[row[name] for name in ahead] for row in rows if row["kind"] == "rank"])
    want = np.mean([(a != b).mean() for a, b in itertools.combinations(table, 2)])
    assert statistics.disagreement(data, "iqm") == pytest.approx(want)


def test_squared_bias_is_unbiased(statistics):
    rng = np.random.default_rng(0)
    found = [statistics.squared_bias(planted(rng, 8, bias=0.6), "median") for _ in range(300)]
    assert abs(np.mean(found) - 0.36) < 4 * np.std(found) / np.sqrt(300)
    none = [statistics.more_bias(planted(rng, 8)) for _ in range(300)]
    assert abs(np.mean(none)) < 4 * np.std(none) / np.sqrt(300), "noise alone is no bias"


def test_coverage_counts_intervals_around_the_pools_value(statistics):
    data = planted(np.random.default_rng(0), 200)
    assert statistics.coverage(data, 3) == pytest.approx(2 * stats.norm.cdf(1.5) - 1, abs=0.05)
    shifted = data.replace("low", data["low"] + 9)
    assert statistics.coverage(shifted, 3) == 0


def test_exchanging_errors_exchanges_biases(statistics):
    data = planted(np.random.default_rng(0), bias=0.7)
    swap = statistics.SwapErrors()
    assert swap.arrangements(data) == 2**60
    always = type("Always", (), {"random": staticmethod(lambda n: np.zeros(n))})
    assert statistics.more_bias(swap(data, always)) == pytest.approx(-statistics.more_bias(data))
    never = type("Never", (), {"random": staticmethod(lambda n: np.ones(n))})
    np.testing.assert_array_equal(swap(data, never)["value"], data["value"])
    null = [statistics.more_bias(swap(data, np.random.default_rng(s))) for s in range(200)]
    assert np.mean(np.array(null) >= statistics.more_bias(data)) < 0.05


# --- the study -----------------------------------------------------------------------------------------------


def small(study, **settings):
    return replace(study, scales={"world": dict(experiments=40, pools=4, replicates=100, tasks=12, **settings)})


def world(parts, flip):
    """Normal scores, two better agents and two worse; flip: a toss says which aggregate bears which name, experiment by experiment."""
    experiment = parts["experiment"]

    def simulate(what, rng):
        tables = (
            rng.normal(0.5, 0.3, (4, np.max(what.settings.runs), what.settings.training.tasks))
            + np.array([0, 0, 0.05, 0.05])[:, None, None]
        )
        if what.function.__name__ == "pool":
            return {"rows": experiment.pool_summary(tables, what.settings)}
        rows, toss = experiment.summary(tables, what.settings, what.seed), flip and rng.random() < 0.5
        other = {"iqm": "median", "median": "iqm"} if toss else {}
        return {"rows": [{**row, "aggregate": other.get(row["aggregate"], row["aggregate"])} for row in rows]}

    return worlds.World(None, simulate=simulate)


def test_a_normal_world_is_seen_as_it_is(study_module, parts):
    """The interquartile mean of normal scores is the better estimate, three runs cover 89%; both are found."""
    verdicts = worlds.live(small(study_module.STUDY), "world", world(parts, flip=False), 0, permutations=200)
    narrow, _, many, few, bias = verdicts
    assert narrow.verdict == "holds" and narrow.value > 0.05
    assert few.ci95[0] < 2 * stats.norm.cdf(1.96 * np.sqrt(2 / 3)) - 1 < few.ci95[1]
    assert many.ci95[0] < 2 * stats.norm.cdf(1.96 * np.sqrt(9 / 10)) - 1 < many.ci95[1] + 0.01
    assert bias.verdict != "holds", "both are unbiased here"


@pytest.mark.full
def test_a_null_world_is_not_believed(study_module, parts):
    """Where a toss says which aggregate is which, no comparison of the two holds: at most 3 of 60 by chance with probability 0.97."""
    found = []
    for seed in range(20):
        verdicts = worlds.live(small(study_module.STUDY, runs=(3, 10)), "world", world(parts, flip=True), seed, permutations=200)
        found += [verdicts[i].verdict for i in (0, 1, 4)]
    assert found.count("holds") <= 3


def test_pod_has_the_papers_table():
    units = planned(PATH, "pod")
    settings = [unit.config.settings for unit in units]
    assert {s.training.tasks for s in settings} == {26}
    assert {s.runs for s in settings if isinstance(s.runs, int)} == {100}
    seeds = [{u.config.seed for u in units if u.config.function.__name__ == name} for name in ("pool", "experiment")]
    assert not seeds[0] & seeds[1], "pools and experiments share no run"


# --- your file -----------------------------------------------------------------------------------------------


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    return {"new": rng.normal(0.8, 0.3, (6, 4)), "old": rng.normal(0.5, 0.3, (5, 4))}


def write_csv(path, tables):
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["agent", "task", "run", "score"])
        for agent, table in tables.items():
            out.writerows([agent, f"t{j}", i, float(s)] for i, row in enumerate(table) for j, s in enumerate(row))
    return path


def test_forms_of_a_file_say_the_same(parts, tables, tmp_path):
    yours = parts["yours"]
    (tmp_path / "rows.json").write_text(json.dumps({a: t.tolist() for a, t in tables.items()}))
    (tmp_path / "tasks.json").write_text(json.dumps({a: {f"t{j}": t[:, j].tolist() for j in range(4)} for a, t in tables.items()}))
    files = [write_csv(tmp_path / "scores.csv", tables), tmp_path / "rows.json", tmp_path / "tasks.json"]
    for path in files:
        found = yours.read(path)
        assert list(found) == ["new", "old"]
        for agent, table in tables.items():
            np.testing.assert_array_equal(found[agent].flat, table.T.reshape(-1))
    assert yours.file(files[0]).fingerprint != yours.file(files[1]).fingerprint


def test_your_scores_are_reported_as_estimates(study_module, tables, tmp_path):
    path = write_csv(tmp_path / "scores.csv", tables)
    study = replace(study_module.STUDY, settings={**study_module.STUDY.settings, "scores": str(path)})
    folder = tmp_path / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "load", lambda name: (study, "precipice"))
        runner.run("precipice", "smoke", folder, until="your_scores", quiet=True)
    verdict = json.loads((folder / "verdict.json").read_text())
    found = {one["text"]: one for one in verdict["estimates"]}
    x, y = tables["new"], tables["old"]
    assert found["iqm of new"]["value"] == pytest.approx(stats.trim_mean(x, 0.25, axis=None))
    assert found["median of old"]["value"] == pytest.approx(np.median(y.mean(0)))
    wins = np.mean([stats.mannwhitneyu(a, b).statistic / 30 for a, b in zip(x.T, y.T, strict=True)])
    won = found["probability that new improves on old"]
    assert won["value"] == pytest.approx(wins) and won["ci95"][0] < wins < won["ci95"][1] and won["n"] == 44
    assert found["share of new's runs that score above 0.5"]["value"] == (x > 0.5).mean()
    assert {claim["verdict"] for claim in verdict["claims"]} == {"not testable"}
    rows = pd.read_csv(folder / "rows.csv")
    profile = rows[(rows["kind"] == "your profile") & (rows["agent"] == "new")]
    assert (profile["low"] <= profile["above"]).all() and (np.diff(profile["above"]) <= 0).all()
    assert "iqm of new" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.csv", "agent,task,score\nq,t,1\n", "no column 'run'; expected agent, task, run, score"),
        ("a.csv", "agent,task,run,score\nq,t,0,1\nq,t,0,2\n", "line 3: run '0' of agent 'q' on task 't' is there already"),
        ("a.csv", "agent,task,run,score\nq,t,0,good\n", "line 2: score = 'good', expected a number"),
        ("a.csv", "agent,task,run,score\nq,t,0,nan\n", r"agent 'q', tasks numbered.*scores\[run 0, task 0\] = nan"),
        ("a.csv", "agent,task,run,score\nq,t,0,1\nr,u,0,1\n", "agent 'q' has no score on task 'u' .1 of 2 tasks missing"),
        ("a.csv", "agent,task,run,score\n", "no agent in it"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[1]", "expected {agent:"),
        ("a.json", '{"q": [1, 2]}', "agent 'q': expected {agent:"),
        ("a.json", '{"q": [[1, 2], [1]]}', r"runs have \[1, 2\] scores"),
        ("b.csv", None, "cannot be read"),
    ],
)
def test_mistakes_in_a_file_are_named_before_anything_runs(parts, study_module, tmp_path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    study = replace(study_module.STUDY, settings={**study_module.STUDY.settings, "scores": str(path)})
    with pytest.raises(ConfigError, match=message):
        study_module.your_scores(study.at("smoke"))
