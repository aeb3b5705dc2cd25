"""The trajectory law: its sizes, its learning rates, crossings and hyperbolas against planted worlds, and its claims in worlds of our own."""

import functools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scaling_jax import config as cfg
from scaling_jax import laws
from scaling_jax.data import synthetic
from scaling_jax.data.corpus import open_corpus
from scaling_jax.laws import forms
from scaling_jax.laws.form import NotTestable
from scaling_jax.studies import claims, runner, worlds
from scaling_jax.studies import study as studies
from scaling_jax.studies.rows import Data
from tests.laws.test_implicit import study_points
from tests.studies.test_contract import planned

PATH = Path(__file__).resolve().parents[2] / "experiments" / "pretraining" / "trajectory_law" / "study.py"
SIZES = {"1M": 1e6, "3M": 3e6, "10M": 1e7, "30M": 3e7, "60M": 6e7, "1B": 1e9}
TRUE = {
    "N_c": 2e3 * 2.0**8,
    "alpha_N": 0.125,
    "S_c": 8.0,
    "alpha_S": 0.6,
    "B_star": 1500 * 2.4**4,
    "alpha_B": 0.25,
}  # close to what tiny gives


@pytest.fixture(scope="module")
def module():
    return cfg.import_file(PATH)


@functools.cache
def study():
    return runner.load("trajectory_law")[0]


def planted(loss, until="held_batch", noise=0.004, permutations=200, seed=0, only=range(5)):
    """The verdicts of tiny on `only` these claims where the loss after S steps is `loss(params, steps, batch in tokens)`."""
    body = lambda run: cfg.component(run.model.name, cfg.MODELS).parameters(run.model).body
    world = worlds.World(lambda run: loss(body(run), run.train.steps, run.data.batch * run.data.sequence), noise=noise)
    asked = replace(study(), claims=tuple(study().claims[i] for i in only))
    return worlds.live(asked, "tiny", world, seed, until=until, permutations=permutations)


def kaplan(params, steps, batch, **changed):
    return float(forms.trajectory.predict(TRUE | changed, {"params": [params], "steps": [steps], "batch": [batch]})[0])


def test_pod_has_the_papers_range_of_sizes():
    """1M to 60M fitted, 1B predicted, N without embedding and head, to 1%."""
    runs = {unit.label["size"]: unit for unit in planned(PATH, "pod")}
    assert set(runs) == set(SIZES)
    for size, unit in runs.items():
        assert unit.label["params"] == pytest.approx(SIZES[size], rel=0.01)
        assert unit.config.schedule.name == "constant" and unit.config.optimizer.weight_decay == 0
    held = {unit.label["size"] for unit in planned(PATH, "pod") if unit.config.seed < studies.TUNING_SEED and unit.label["size"] == "1B"}
    assert held == {"1B"}


def test_no_text_is_read_twice_at_tiny():
    for unit in planned(PATH, "tiny"):
        assert unit.config.train.steps * unit.config.data.batch * unit.config.data.sequence < len(
            open_corpus(unit.config.data).splits["train"]
        )


@pytest.mark.parametrize("scale", ["tiny", "small", "pod"])
def test_trajectories_of_one_batch_size_are_seen_at_the_same_steps(scale):
    """Carrying a curve over needs that; and the first evaluation, which is left out, holds the whole warm-up."""
    seen = {}
    for unit in planned(PATH, scale):
        every, steps = unit.config.train.evaluate_every, unit.config.train.steps
        assert steps % every == 0 and every >= unit.config.schedule.warmup * steps
        seen.setdefault((unit.label["setting"], unit.label["windows"]), set()).add((every, steps))
    assert all(len(one) == 1 for one in seen.values())


def test_rows_are_the_evaluations_but_the_first(module):
    unit = planned(PATH, "tiny")[0]
    metrics = {"evaluations": {"step": [10, 20, 30], "test/loss": [3.0, 2.0, 1.5]}}
    rows = module.stages.rows(unit, metrics, {})
    batch = unit.config.data.batch * unit.config.data.sequence
    assert [(r["steps"], r["tokens"], r["loss"]) for r in rows] == [(20, 20 * batch, 2.0), (30, 30 * batch, 1.5)]
    assert rows[0]["params"] == rows[0]["params_trained"] and rows[0]["runs"] == (unit.identity,)


def test_the_learning_rate_is_the_planted_optimum():
    """Losses are a parabola in the logarithm of the rate, whose minimum is a product of a part of the size and a part of the batch."""
    best = lambda run: 0.009 * (run.data.batch / 32) ** 0.37 * (16 / run.model.width) ** 0.8
    world = worlds.World(lambda run: 2 + 0.1 * math.log(run.optimizer.learning_rate / best(run)) ** 2, noise=0.0)
    state = replace(study().at("tiny"), results={})

    def execute(stage, known, missing):
        state.results.update({unit.identity: worlds._train(world, unit, 0) for unit in missing})

    done = studies.walk(study(), state, execute, until="held_batch")
    for stage in ("sizes", "held_size", "held_batch"):
        for unit in done[stage]:
            assert unit.config.optimizer.learning_rate == pytest.approx(best(unit.config), rel=1e-3)
            assert not unit.label["edge"]


def test_ablations_train_all_cells_alike():
    for ablation, fixed in (({"same_size": True}, "width"), ({"same_batch": True}, "batch")):
        done = studies.forecast(study(), study().at("tiny", ablation))
        units = [unit for stage in ("sizes", "held_size", "held_batch") for unit in done[stage]]
        read = {"width": lambda run: run.model.width, "batch": lambda run: run.data.batch}
        varies = {name: {one(unit.config) for unit in units} for name, one in read.items()}
        assert len(varies.pop(fixed)) == 1 and all(len(values) > 2 for values in varies.values())
        assert len({unit.identity for unit in units}) == len(units), "and no two cells share a run"


def test_the_floor_is_the_sources_own_loss(module):
    """Near the exact entropy rate, and below any model's loss on the windows in expectation."""
    run = next(unit.config for unit in planned(PATH, "tiny") if unit.label["setting"] == module.stages.KNOWN)
    assert module.stages.floor(run.data) == pytest.approx(synthetic.entropy_rate(run.data), abs=0.05)


# --- crossings and hyperbolas ------------------------------------------------------------------------------------------------


def test_the_hyperbola_is_the_fit_of_the_library(module):
    """Against laws.fit of forms.batch_tradeoff, on noisy steps: the same least squares of logarithms."""
    rng, batches = np.random.default_rng(0), np.array([128.0, 512, 1024, 2048])
    least, critical = rng.uniform(10, 100, 12), 10 ** rng.uniform(2.3, 3.7, 12)
    steps = least[:, None] * (1 + critical[:, None] / batches) * np.exp(0.03 * rng.standard_normal((12, 4)))
    found = module.statistics.crossings.hyperbola(batches, steps)
    for i in range(12):
        fit = laws.fit(forms.batch_tradeoff, {"batch": batches, "steps": steps[i]})
        assert found[0][i] == pytest.approx(fit["S_min"], rel=2e-3)
        assert found[1][i] == pytest.approx(fit["T_min"] / fit["S_min"], rel=4e-3)


@pytest.mark.parametrize("exact", [1e-3, 1e9])
def test_a_critical_batch_out_of_reach_ends_at_the_edge(module, exact):
    """Steps that do not depend on the batch, or fall as its inverse: the ends of what is looked at, not beyond."""
    batches = np.array([128.0, 512, 1024, 2048])
    _, critical = module.statistics.crossings.hyperbola(batches, 10.0 * (1 + exact / batches)[None])
    edge = 128 / module.statistics.crossings.BEYOND if exact < 1 else 2048 * module.statistics.crossings.BEYOND
    assert critical[0] == pytest.approx(edge, rel=0.01)


def points(params, noise=0.0, seed=0):
    """Averaged points of a planted law, as `crossings.averaged` gives them."""
    x, _ = study_points(0)
    y = forms.trajectory.predict(params, x) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(x["steps"])))
    return {**x, "loss": y}


def test_crossings_find_the_planted_critical_batch(module):
    """B_crit of the law at every level, from nothing but curves; the curves are smoothed by a form that is not the law's, hence 15%."""
    at = points(TRUE)
    _, loss, batches, steps = module.statistics.crossings.crossings(at)
    _, critical = module.statistics.crossings.hyperbola(batches, steps)
    assert len(loss) == 4 * module.statistics.crossings.LEVELS
    np.testing.assert_allclose(critical, forms.critical_batch.predict(TRUE, {"loss": loss}), rtol=0.15)


def test_step_by_step_and_at_once_predict_a_planted_size(module):
    """Fitted to three sizes, both give the trajectory of a fourth, four times as large, to 1%."""
    at = points(TRUE)
    held = at["params"] == at["params"].max()
    known, largest = (module.statistics.crossings.select(at, keep) for keep in (~held, held))
    for params in (module.statistics.crossings.stepwise(known), module.statistics.fitted(module.statistics.LAW, known).params):
        np.testing.assert_allclose(forms.trajectory.predict(params, largest), largest["loss"], rtol=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_few_starts_find_the_minimum_that_all_find(module, seed):
    for floor, form, own in ((False, forms.trajectory, "LAW"), (True, forms.trajectory_floor, "WITH_FLOOR")):
        x, p = study_points(seed, floor)
        y = form.predict(p, x) * np.exp(0.01 * np.random.default_rng(seed).standard_normal(len(x["steps"])))
        few, many = (laws.fit(one, {**x, "loss": y}) for one in (getattr(module.statistics, own), form))
        assert few.objective <= many.objective * (1 + 1e-6)


def test_a_curve_is_carried_over_place_by_place(module):
    at = points(TRUE)
    held = at["params"] == at["params"].max()
    known, largest = (module.statistics.crossings.select(at, keep) for keep in (~held, held))
    carried = module.statistics.carried(known, largest)
    np.testing.assert_array_equal(carried, known["loss"][known["params"] == known["params"].max()])
    with pytest.raises(NotTestable, match="no point at"):
        module.statistics.carried(known, {**largest, "steps": largest["steps"] + 1})


def test_a_run_that_diverged_is_not_averaged(module):
    rows = module.stages.rows(planned(PATH, "tiny")[0], {"evaluations": {"step": [1, 2], "test/loss": [3.0, math.nan]}}, {})
    frame = Data(__import__("pandas").DataFrame(rows), {rows[0]["runs"][0]: "cell"})
    with pytest.raises(NotTestable, match="diverged"):
        module.statistics.crossings.averaged(frame)


# --- the claims in worlds of our own -----------------------------------------------------------------------------------------


@pytest.mark.full
def test_where_the_law_is_true_its_claims_hold():
    verdicts = planted(kaplan)
    assert [v.verdict for v in verdicts[:4]] == ["holds"] * 4
    assert verdicts[4].verdict == "not testable" and "known entropy" in verdicts[4].reason


@pytest.mark.full
@pytest.mark.parametrize("seed", range(2))
def test_where_nothing_depends_on_size_or_batch_no_claim_holds(seed):
    """Steps alone count: the carried curve is as good as the law, no batch is critical, equal steps is the better rule."""
    verdicts = planted(lambda params, steps, batch: 1.9 + (8.0 / steps) ** 0.6, permutations=100, seed=seed)
    assert "holds" not in [v.verdict for v in verdicts]


def stays(params, steps, batch):
    """B_crit is 1500 at every loss: larger batches take fewer steps and more tokens, but no more so at a lower loss."""
    by_size, by_steps = (TRUE["N_c"] / params) ** TRUE["alpha_N"], TRUE["S_c"] * (1 + 1500 / batch) / steps
    return by_size + by_steps ** TRUE["alpha_S"]


def test_a_critical_batch_that_stays_does_not_grow(module):
    at, found = points(TRUE), module.statistics
    data = rows_of({**at, "loss": stays(at["params"], at["steps"], at["batch"])})
    assert found.growth(data) == pytest.approx(0.0, abs=0.07) and found.critical_growth(data) == pytest.approx(0.0, abs=0.4)
    assert found.trade(data) > 0.3


def test_growth_is_that_of_the_law(module):
    """Against the law's own critical batch at the levels compared: S / S_min = 1 + B_crit / B."""
    at, found = points(TRUE), module.statistics
    params, loss, batches, _ = found.crossings.crossings(at)
    critical = forms.critical_batch.predict(TRUE, {"loss": loss})
    slopes = np.polyfit(np.log(batches), np.log1p(critical[:, None] / batches).T, 1)[0]
    around = lambda x: np.concatenate([x[params == size] - x[params == size].mean() for size in np.unique(params)])
    exact = np.polyfit(around(np.log(loss)), around(slopes), 1)[0]
    assert exact > 0.5 and found.growth(rows_of(at)) == pytest.approx(exact, rel=0.15)
    assert found.critical_growth(rows_of(at)) == pytest.approx(1 / TRUE["alpha_B"], rel=0.15)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
def test_a_critical_batch_that_stays_is_not_said_to_grow(seed):
    """The batch matters, and still chance gives as much growth: what is exchanged is the order of the curves."""
    verdict = planted(stays, seed=seed, only=(1,))[0]
    assert verdict.verdict != "holds" and verdict.null_p > 0.01


def rows_of(at):
    """Rows of the fitted stage, one run per size and batch."""
    import pandas as pd

    frame = pd.DataFrame(at).assign(setting="text", stage="sizes", seed=0)
    frame["runs"] = [(f"{p:g} {b:g}",) for p, b in zip(at["params"], at["batch"], strict=True)]
    return Data(frame, {runs[0]: runs[0] for runs in frame["runs"]})


def test_what_chance_permutes_keeps_every_run_whole(module):
    """A relabelling of batch sizes moves whole trajectories, within a size and seed."""
    data = rows_of(points(TRUE))
    moved = module.statistics.BATCHES_EXCHANGED(data, np.random.default_rng(1))
    frame = moved.frame
    assert (frame.groupby("runs")["batch"].nunique() == 1).all() and (frame.groupby("params")["batch"].nunique() == 4).all()
    assert (frame["batch"] != data.frame["batch"]).any() and claims._describe(module.statistics.BATCHES_EXCHANGED)


def test_curves_are_exchanged_whole(module):
    """Every curve of a size gets one batch size, its own or another's, for all its seeds; the other stages are left alone."""
    frame = rows_of(points(TRUE)).frame
    both = __import__("pandas").concat(
        [frame, frame.assign(seed=1, runs=[(f"{one} again",) for (one,) in frame["runs"]])], ignore_index=True
    )
    both.loc[both["params"] == both["params"].max(), "stage"] = "held_size"
    data, exchange = Data(both, {run: run for (run,) in both["runs"]}), module.statistics.CurvesExchanged()
    moved = exchange(data, np.random.default_rng(1)).frame
    assert exchange.arrangements(data) == 24**3
    fitted = both["stage"] == "sizes"
    assert (moved["batch"] == both["batch"])[~fitted].all() and (moved["batch"] != both["batch"])[fitted].any()
    pairs = moved.assign(was=both["batch"])[fitted].groupby("params")[["was", "batch"]].apply(lambda part: part.drop_duplicates().shape[0])
    assert (pairs == 4).all() and (moved[fitted].groupby("params")["batch"].nunique() == 4).all()


@pytest.mark.parametrize(
    ("exchange", "column", "values", "others"),
    [("SIZES_EXCHANGED", "params", 2, {128, 512, 2048}), ("HELD_BATCH_EXCHANGED", "batch", 2, 2)],
)
def test_what_is_held_out_changes_places_with_its_neighbour_alone(module, exchange, column, values, others):
    """The largest value and the next, in the cells that have both; nothing else moves."""
    done = studies.forecast(study(), study().at("tiny"))
    results = {u.identity: {"evaluations": {"step": [1, 2], "test/loss": [3.0, 2.0]}} for group in done.values() for u in group}
    frame, cells = studies.rows(study(), replace(study().at("tiny"), results=results), done)
    before = Data(frame, cells)
    after = getattr(module.statistics, exchange)(before, np.random.default_rng(0)).frame
    moved, other = frame[after[column] != frame[column]], "batch" if column == "params" else "params"
    largest = sorted(frame[frame["setting"] == "text"][column].unique())[-values:]
    assert set(moved[column]) == set(largest) and set(moved["setting"]) == {"text"}
    assert set(moved[other]) == others if isinstance(others, set) else moved[other].nunique() == others
