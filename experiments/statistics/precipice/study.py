"""Deep RL at the edge of the statistical precipice (arXiv:2108.13264).

From a few runs on many tasks: which aggregate is known best, and do its intervals hold what they promise? Four tabular agents
learn on a suite of small decision tasks; an experiment of three, five or ten runs is repeated many times, and compared with the
values of a thousand runs. Your own scores: set `scores` to a CSV (agent, task, run, score) or JSON file; `--until=your_scores` reports
them alone.
"""

from scaling_jax.studies.claims import Claim
from scaling_jax.studies.figures import curves
from scaling_jax.studies.study import Estimate, Stage, Study

from . import charts, statistics, yours
from .experiment import Experiment, Pool, experiment, pool
from .learning import Training


def training(state, suite):
    return Training(suite=suite, tasks=state["tasks"], noise=state["noise"], steps=state["steps"], episodes=state["episodes"])


def pools(state):
    """The pool of each suite, in parts that tell how well it is known."""
    return [
        state.simulate(pool, Pool(training(state, suite), state["pool_runs"], state["cut"]), POOL_SEED + seed, suite=suite)
        for suite in state["suites"]
        for seed in range(state["pools"])
    ]


def experiments(state):
    """Experiments of few runs on each suite."""
    what = lambda suite: Experiment(training(state, suite), state["runs"], state["cut"], state["replicates"], state["method"])
    return [
        state.simulate(experiment, what(suite), seed, suite=suite)
        for suite in state["suites"]
        for seed in state.seeds(state["experiments"])
    ]


def your_scores(state):
    """The user's own file, where one is given."""
    return [state.simulate(yours.report, yours.file(state["scores"], method=state["method"]), 0)] if state["scores"] else []


def rows(unit, metrics, runs):
    """Rows as the simulation gives them; its many settings are in each run's config.json."""
    return [{"seed": unit.config.seed, "suite": -1, **unit.label, **row, "runs": (unit.identity,)} for row in metrics["rows"]]


POOL_SEED = 500_000  # pools and experiments share no random number
BLUNT_CUT = {"cut": 0.49}  # all but the middle scores are cut away: a median of runs
NINE_OR_TEN = {"runs": (9, 10)}

CLAIMS = (
    Claim(
        "at few runs the interval of the interquartile mean is narrower than that of the median",
        statistics.width_ratio,
        threshold=0,
        side=">",
        exchange=statistics.AGGREGATES,
        ablation=BLUNT_CUT,
        unit="log ratio",
        explain="logarithm of the mean width of the median's 95% intervals over that of the interquartile mean's",
    ),
    Claim(
        "from few runs, independent experiments disagree more often on who is ahead by the median than by the interquartile mean",
        statistics.more_disagreement,
        threshold=0,
        side=">",
        exchange=statistics.RANKINGS,
        ablation=BLUNT_CUT,
        unit="share of pairs of experiments",
        explain="disagreement on which of two agents is ahead, by the median minus by the interquartile mean, over all pairs of agents",
    ),
    Claim(
        "at many runs the 95% stratified bootstrap interval of the interquartile mean covers in more than 90% of experiments",
        statistics.coverage_of_many,
        threshold=0.90,
        side=">",
        exchange=statistics.INTERVALS,
        ablation={"runs": (2, 3)},
        unit="share of intervals",
        explain="share of intervals that contain the pool's value",
    ),
    Claim(
        "at few runs that interval covers in less than 95% of experiments",
        statistics.coverage_of_few,
        threshold=0.95,
        side="<",
        exchange=statistics.RUNS,
        ablation=NINE_OR_TEN,
        unit="share of intervals",
        explain="share of intervals that contain the pool's value",
    ),
    Claim(
        "at few runs the median is more biased than the interquartile mean",
        statistics.more_bias,
        threshold=0,
        side=">",
        exchange=statistics.SwapErrors(),
        ablation=NINE_OR_TEN,
        unit="score squared",
        explain="squared bias of the median minus that of the interquartile mean, averaged over agents",
    ),
)

STUDY = Study(
    paper="2108.13264",
    title="Deep RL at the edge of the statistical precipice",
    question="How should a few runs on many tasks be summarised so that the next few runs say the same?",
    base=None,
    settings=dict(
        suites=(0,),
        tasks=16,
        noise=1.0,
        steps=1000,
        episodes=10,
        runs=(3, 5, 10),
        experiments=100,
        pools=8,
        pool_runs=100,
        cut=0.25,
        replicates=2000,
        method="percentile",
        scores=None,
    ),
    stages=(Stage("your_scores", your_scores), Stage("pools", pools), Stage("experiments", experiments)),
    scales={
        "smoke": dict(tasks=4, steps=100, runs=(2, 4), experiments=6, pools=3, pool_runs=10, replicates=200),
        "tiny": {},
        "small": dict(suites=(0, 1, 2, 3), experiments=200, pools=10, steps=2000),
        "pod": dict(suites=(0, 1, 2, 3), tasks=26, experiments=200, pools=20, steps=5000, episodes=100, replicates=50_000),
    },
    rows=rows,
    claims=CLAIMS,
    estimates=(
        Estimate(
            "coverage at few runs, interquartile mean (0.89 for a normal mean of many tasks at three runs)",
            statistics.coverage_of_few,
            "share",
        ),
        Estimate("coverage at few runs, median", lambda data: statistics.coverage(data, statistics.few(data), "median"), "share"),
        Estimate("coverage at few runs, mean", lambda data: statistics.coverage(data, statistics.few(data), "mean"), "share"),
        Estimate("coverage at many runs, median", lambda data: statistics.coverage(data, statistics.many(data), "median"), "share"),
        Estimate(
            "two experiments of few runs disagree on who is ahead, interquartile mean",
            lambda data: statistics.disagreement(data, "iqm"),
            "share",
        ),
        Estimate(
            "two experiments of few runs disagree on who is ahead, median", lambda data: statistics.disagreement(data, "median"), "share"
        ),
    ),
    figures=(
        charts.against_runs(
            "Width of intervals against runs",
            statistics.width,
            "mean width of the 95% interval (score)",
            claims=(1,),
            caption="Stratified bootstrap intervals of single experiments, averaged over experiments and agents.",
        ),
        charts.against_runs(
            "Coverage against runs",
            statistics.coverage,
            "share of 95% intervals that cover",
            claims=(3, 4),
            caption="Over experiments and agents; the values to be covered are those of the pool.",
        ),
        curves(
            "Performance profiles",
            x="tau",
            y="above",
            by="agent",
            where={"kind": "profile"},
            x_label="normalised score",
            y_label="share of runs above",
            x_log=False,
            caption="Of the pool: 0 is acting at random, 1 the optimal policy.",
        ),
        charts.your_profiles("Profiles of your scores", caption="From the file under the setting `scores`, with bootstrap bands."),
    ),
)
