"""Trajectories: tables and exports of every shape, our own runs, and rows of them."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_jax.laws import tables
from scaling_jax.laws.fitting import fit
from scaling_jax.laws.forms import power
from scaling_jax.laws.trajectories import read_trajectories, to_rows
from scaling_jax.records import ConfigError
from scaling_jax.train import trajectory

NAN = math.nan


def write(folder, content, name="runs.csv"):
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


def logged(trajectories, run, metric):
    """{step: value}."""
    return trajectories.series[run][metric].to_dict()


def refused(path, words, **options):
    with pytest.raises(ConfigError) as caught:
        read_trajectories(path, **options)
    assert str(path) in str(caught.value) and words in str(caught.value)


# --- tables --------------------------------------------------------------------------------------------------

WIDE = pd.DataFrame(
    {
        "run": ["a", "a", "b", "a", "b"],
        "step": [10, 20, 10, 30, 20],
        "train/loss": [3.0, 2.5, 3.5, 2.25, 3.25],
        "val/loss": [NAN, 2.75, NAN, NAN, 3.375],
        "optimizer": ["adamw", "adamw", "muon", "adamw", "muon"],
        "config.lr": [0.1, 0.1, 0.2, 0.1, 0.2],
        "config.width": [64, 64, 128, 64, 128],
    }
)
WRITERS = {
    "runs.csv": lambda frame, path: frame.to_csv(path),
    "runs.tsv.gz": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "runs.jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "runs.parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.mark.parametrize("shape", ["wide", "long"])
@pytest.mark.parametrize("name", WRITERS)
def test_wide_and_long_tables_say_the_same(name, shape, tmp_path):
    keys = ["run", "step", "optimizer", "config.lr", "config.width"]
    frame = WIDE if shape == "wide" else WIDE.melt(keys, var_name="metric").sample(frac=1, random_state=0)
    WRITERS[name](frame, tmp_path / name)
    found = read_trajectories(tmp_path / name)
    assert set(found.series) == {"a", "b"} and set(found.metrics) == {"train/loss", "val/loss"}
    assert logged(found, "a", "train/loss") == {10: 3.0, 20: 2.5, 30: 2.25}
    assert logged(found, "a", "val/loss") == {20: 2.75}  # an empty cell was not logged
    assert logged(found, "b", "val/loss") == {20: 3.375}
    assert found.config == {"a": {"optimizer": "adamw", "lr": 0.1, "width": 64}, "b": {"optimizer": "muon", "lr": 0.2, "width": 128}}
    assert found.notes == () or shape == "long"  # which was shuffled
    columns = ["run", "step", "train/loss", "val/loss"]
    pd.testing.assert_frame_equal(
        found.frame.sort_values(["run", "step"])[columns].reset_index(drop=True),
        WIDE.sort_values(["run", "step"])[columns].reset_index(drop=True),
        check_dtype=False,
    )


def test_columns_of_other_names_and_one_run_by_its_file(tmp_path):
    path = write(tmp_path, "examples,who,loss\n1_000,x,3\n2_000,x,2\n")
    refused(path, "no column 'step'; it has 'examples', 'who', 'loss'. Say which of them is step: --columns=step=COLUMN")
    found = read_trajectories(path, {"step": "examples", "run": "who"})
    assert logged(found, "x", "loss") == {1000: 3, 2000: 2}
    found = read_trajectories(path, {"step": "examples"})
    assert found.config == {"runs": {"who": "x"}} and logged(found, "runs", "loss") == {1000: 3, 2000: 2}
    refused(path, "no column 'value'; it has", columns={"metric": "who", "step": "examples"})
    refused(path, "no column 'whom' (did you mean 'who'?)", columns={"run": "whom", "step": "examples"})
    with pytest.raises(ConfigError, match="columns: 'loss' is none of run, step, metric, value"):
        read_trajectories(path, {"loss": "val/loss", "step": "examples"})


def test_a_folder_of_histories_is_a_run_each(tmp_path):
    for run, loss in (("first", 3.0), ("second", 4.0)):
        frame = pd.DataFrame({"_step": [0, 1], "_runtime": [0.5, 1.5], "val/loss": [loss, loss - 1]})
        frame.to_parquet(tmp_path / f"{run}.parquet") if run == "first" else frame.to_json(
            tmp_path / f"{run}.jsonl", orient="records", lines=True
        )
    found = read_trajectories(tmp_path, metrics="val/loss")
    assert {run: logged(found, run, "val/loss") for run in found.series} == {"first": {0: 3, 1: 2}, "second": {0: 4, 1: 3}}
    assert found.metrics == ("val/loss",)
    refused(tmp_path, "no run logged 'val_loss' (did you mean 'val/loss'?); there are _runtime, val/loss", metrics=["val_loss"])


PANEL = """"Step","big - run - val/loss","big - run - val/loss__MIN","big - run - val/loss__MAX","small - val/loss","small - val/loss__MIN","small - val/loss__MAX"
"0","3.5","3.5","3.5","","",""
"5","","","","3.75","3.5","4"
"10","3.25","3.25","3.25","NaN","NaN","NaN"
"""


def test_the_export_of_a_panel(tmp_path):
    found = read_trajectories(write(tmp_path, PANEL))
    assert set(found.series) == {"big - run", "small"} and found.metrics == ("val/loss",)
    assert logged(found, "big - run", "val/loss") == {0: 3.5, 10: 3.25}
    small = found.series["small"]["val/loss"]
    assert small.index.tolist() == [5, 10] and small.iloc[0] == 3.75 and math.isnan(small.iloc[1])
    averaged, diverged = found.notes
    assert averaged.startswith("run 'small': 1 of 2 points of val/loss are means over several values (__MIN < __MAX)")
    assert diverged == "run 'small': val/loss is not finite at 1 of 2 steps, first at 10"


def test_a_panel_with_step_columns_and_without_bounds(tmp_path):
    found = read_trajectories(write(tmp_path, "_step,a - loss,a - _step,b - loss\n1,3,1,\n2,,,4\n"))
    assert logged(found, "a", "loss") == {1: 3} and logged(found, "b", "loss") == {2: 4} and found.metrics == ("loss",)
    found = read_trajectories(write(tmp_path, "step,a - loss,a - loss__MIN,a - loss__MAX,total\n1,3,3,3,9\n"))
    assert found.notes == (f"{tmp_path / 'runs.csv'}: column 'total' names no run and is left out",)
    refused(write(tmp_path, "step,a - loss,b - loss\n1,3,4\n2,3.l4,4\n"), ", line 3, column 'a - loss': '3.l4' is not a number")


@pytest.mark.parametrize(
    "content, words",
    [
        ("step,loss\n1,3\n2,3.l4\n", ", line 3, column 'loss': '3.l4' is not a number, other cells of the column are; correct it"),
        ("step,loss\n1,3\n,3\n", ", line 3, column 'step': the cell is empty"),
        ("run,step,loss\na,1,3\n,2,3\n", ", line 3, column 'run': the cell is empty; say here what the row belongs to"),
        ("step,metric,value\n1,loss,3\n2,loss,x\n", ", line 3, column 'value': 'x' is not a number; correct it or delete the row"),
        ("step,metric,value\n1,loss,3\n2,,3\n", ", line 3, column 'metric': the cell is empty"),
        ("step,config.lr,loss\n1,.1,3\n2,.2,3\n", ", line 3, column 'config.lr': '.2' differs from a row above of the same run"),
        ("run,step,loss\na,1,3\na,2\n", ", line 3, column 'loss': the line ends after 2 of 3 fields"),
    ],
)
def test_damaged_tables(content, words, tmp_path):
    refused(write(tmp_path, content), words)


def test_text_that_is_no_metric(tmp_path):
    path = write(tmp_path, "run,step,commit,loss,sample\na,1,12,3,x\na,2,ab,2,y\n")
    refused(path, "column 'commit': 'ab' is not a number, other cells of the column are; correct it, or name the metrics to read")
    found = read_trajectories(path, metrics=["loss"])
    assert found.config == {"a": {}} and logged(found, "a", "loss") == {1: 3, 2: 2}
    assert found.notes == tuple(
        f"{path}: column {name!r} changes within a run and is no metric; it is left out" for name in ("commit", "sample")
    )


def test_parquet_keeps_nan_from_what_was_not_logged(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    parquet.write_table(pa.table({"_step": [1, 2, 3], "loss": pa.array([3.0, NAN, None], pa.float64())}), tmp_path / "run.parquet")
    found = read_trajectories(tmp_path / "run.parquet").series["run"]["loss"]
    assert found.index.tolist() == [1, 2] and math.isnan(found[2])


# --- order and repetition ------------------------------------------------------------------------------------


def test_a_restart_is_put_in_order_and_said(tmp_path):
    steps = [10, 20, 30, 40, 20, 30]
    found = read_trajectories(write(tmp_path, "step,loss\n" + "".join(f"{s},{i}\n" for i, s in enumerate(steps))))
    assert logged(found, "runs", "loss") == {10: 0, 20: 4, 30: 5, 40: 3}
    assert found.notes == (
        "run 'runs': values logged again at a step that had one: 2 (first loss at 20); the last is kept",
        "run 'runs': steps go back, first from 40 to 20 (loss), as after a restart: put in order; "
        "those above 30 are of before and were not logged again",
    )


POINTS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 8), st.sampled_from([1.0, 2.5, NAN, math.inf])), min_size=1, max_size=25)


@settings(max_examples=80)
@given(POINTS)
def test_no_value_is_lost_but_those_logged_again(tmp_path_factory, points):
    path = tmp_path_factory.getbasetemp() / "long.jsonl"
    path.write_text("".join(json.dumps({"run": r, "step": s, "metric": "loss", "value": v}) + "\n" for r, s, v in points))
    expected: dict = {}
    for run, step, value in points:
        expected.setdefault(run, {})[step] = value
    found = read_trajectories(path)
    assert list(found.series) == list(expected)
    for run, values in expected.items():
        series = found.series[run]["loss"]
        assert series.index.tolist() == sorted(values)
        np.testing.assert_array_equal(series, [values[step] for step in sorted(values)])
    lost = len(points) - sum(map(len, expected.values()))
    said = [int(note.split(": ")[2].split()[0]) for note in found.notes if "values logged again" in note]
    assert sum(said) == lost
    strange = sum(not math.isfinite(v) for values in expected.values() for v in values.values())
    assert sum(int(note.split(" at ")[1].split()[0]) for note in found.notes if "is not finite" in note) == strange


# --- our own runs --------------------------------------------------------------------------------------------


def own_run(folder, losses, config=None):
    writer = trajectory.Writer(folder / "trajectory", 0)
    for step, loss in losses.items():
        writer.log(step, {"train/loss": loss, **({"test/loss": loss + 0.5} if step % 20 == 0 else {})})
        if step == 20:
            writer.seal(20)
    writer.close()
    if config:
        trajectory.write_json(folder / "config.json", {"schema": 1, "config": config, "corpus": "x"})


def test_a_study_directory_is_read_as_training_reads_it(tmp_path):
    own_run(tmp_path / "runs" / "one", {10: 3.0, 20: 2.0, 30: NAN}, {"seed": 1, "model": {"width": 64, "shape": [1, 2]}})
    own_run(tmp_path / "runs" / "two", {10: 4.0, 20: 3.0})
    (tmp_path / "runs" / "score").mkdir()  # a unit that trains nothing
    found = read_trajectories(tmp_path)
    assert found.config == {"one": {"seed": 1, "model.width": 64, "model.shape": "[1, 2]"}, "two": {}}
    for run in ("one", "two"):
        theirs = trajectory.read(tmp_path / "runs" / run)
        ours = found.frame[found.frame.run == run].drop(columns="run").reset_index(drop=True)
        pd.testing.assert_frame_equal(ours[theirs.columns], theirs)
        alone = read_trajectories(tmp_path / "runs" / run)
        assert list(alone.series) == [run]
    assert found.notes == ("run 'one': train/loss is not finite at 1 of 3 steps, first at 30",)


def test_own_runs_that_were_cut_or_changed(tmp_path):
    own_run(tmp_path / "run", {10: 3.0, 20: 2.0, 30: 1.5})
    open_, sealed = tmp_path / "run" / "trajectory" / "000000020.jsonl", tmp_path / "run" / "trajectory" / "000000000.jsonl"
    open_.write_text(open_.read_text() + '{"step": 40, "train')
    found = read_trajectories(tmp_path / "run")
    assert logged(found, "run", "train/loss") == {10: 3.0, 20: 2.0, 30: 1.5}
    assert "the last line of 000000020.jsonl was not written to the end" in found.notes[0]
    open_.write_text('{"step": 30\n')
    with pytest.raises(ConfigError, match="000000020.jsonl, line 1: "):
        read_trajectories(tmp_path / "run")
    sealed.write_text(sealed.read_text().replace("3.0", "2.9"))
    with pytest.raises(ConfigError, match="000000000.jsonl: this sealed segment is missing or was changed"):
        read_trajectories(tmp_path / "run")


def test_nothing_to_read(tmp_path):
    refused(tmp_path / "absent", "no such file or folder")
    refused(tmp_path, "holds no event file, no table (.csv, ")


# --- rows ----------------------------------------------------------------------------------------------------

RUNS = """run,step,tokens,loss,acc,config.params,config.step
a,1,10,4,,1M,x
a,2,20,2,.5,1M,x
a,3,30,3,,1M,x
b,1,10,5,.1,2M,y
b,2,20,,,2M,y
b,3,30,NaN,.2,2M,y
c,1,10,,.3,4M,z
"""


def rows(folder, *args, **options):
    return to_rows(read_trajectories(write(folder, RUNS)), *args, **options)


def records(frame, *names):
    return [tuple(None if isinstance(v, float) and math.isnan(v) else v for v in row) for row in frame[list(names)].to_numpy().tolist()]


def test_rows_at_the_last_step(tmp_path):
    found = rows(tmp_path, "loss")
    assert list(found) == ["run", "step", "loss", "tokens", "acc", "params", "config.step", "note"]
    assert records(found, "run", "step", "loss", "tokens", "acc", "params", "config.step") == [
        ("a", 3, 3, 30, 0.5, "1M", "x"),  # the accuracy as last logged
        ("b", 3, None, 30, 0.2, "2M", "y"),  # diverged, and kept
        ("c", None, None, None, None, "4M", "z"),
    ]
    assert found.note.tolist() == ["", "loss is not finite at 1 of 2 steps, first at 3", "loss was never logged"]


def test_rows_at_the_least_value(tmp_path):
    found = rows(tmp_path, "loss", at="min")
    assert records(found, "run", "step", "loss", "tokens", "acc") == [
        ("a", 2, 2, 20, 0.5),
        ("b", 1, 5, 10, 0.1),
        ("c", None, None, None, None),
    ]


def test_rows_at_steps(tmp_path):
    found = rows(tmp_path, "loss", at=[1, 2])
    assert records(found, "run", "step", "loss") == [
        ("a", 1, 4),
        ("b", 1, 5),
        ("c", None, None),
        ("a", 2, 2),
        ("b", None, None),
        ("c", None, None),
    ]
    assert "loss was not logged at step 2" in found.note[4]
    with pytest.raises(ConfigError, match="at = 7: no run logged loss at this step; the nearest are 1, 2, 3"):
        rows(tmp_path, "loss", at=7)


def test_smoothing_is_a_mean_over_logged_points(tmp_path):
    found = rows(tmp_path, "loss", at="last", smooth=2)
    assert records(found, "step", "loss") == [(3, 2.5), (3, None), (None, None)]
    found = rows(tmp_path, "loss", at="min", smooth=3)
    assert records(found, "step", "loss")[0] == (3, 3) and "logged at 2 steps, too few for a mean over 3" in found.note[1]
    values = np.random.default_rng(0).standard_normal(50)
    found = read_trajectories(write(tmp_path, "step,loss\n" + "".join(f"{i},{v!r}\n" for i, v in enumerate(values.tolist()))))
    theirs = pd.Series(values).rolling(7).mean()
    assert to_rows(found, at="min", smooth=7).loss[0] == pytest.approx(theirs.min(), rel=1e-12)
    assert to_rows(found, at="min", smooth=7).step[0] == theirs.idxmin()


def test_a_metric_that_ends_before_its_run_is_said(tmp_path):
    text = "step,train,val\n" + "".join(f"{s},{9 - s},{5 if s in (2, 4) else ''}\n" for s in range(1, 9))
    found = read_trajectories(write(tmp_path, text))
    assert to_rows(found, "val").note[0] == "val was last logged at step 4, the run goes on to 8"
    assert to_rows(found, "train").note[0] == "" and to_rows(found, "val", at=4).note[0] == ""


@pytest.mark.parametrize(
    "args, options, words",
    [
        ((), {}, "metric = None: no run logged it; there are tokens, loss, acc"),
        (("los",), {}, "metric = 'los': no run logged it (did you mean 'loss'?)"),
        (("loss",), {"at": "end"}, "at = 'end': expected 'last', 'min', a step"),
        (("loss",), {"at": []}, "at = []: expected"),
        (("loss",), {"smooth": 0}, "smooth = 0: expected a number of logged points"),
        (("loss",), {"smooth": True}, "smooth = True: expected"),
    ],
)
def test_mistakes_in_asking_for_rows(args, options, words, tmp_path):
    with pytest.raises(ConfigError) as caught:
        rows(tmp_path, *args, **options)
    assert words in str(caught.value)


def test_from_an_export_to_a_law(tmp_path):
    """Rows of trajectories fit like points: the law that the losses were made of comes back."""
    text = "run,step,val/loss,config.size\n"
    for size in (10, 100, 1000, 10_000, 100_000):
        text += "".join(f"n{size},{step},{1.5 + 400 / size + 1 - step / 4:.17g},{size}\n" for step in (1, 2, 3, 4))
    rows_ = to_rows(read_trajectories(write(tmp_path, text)), "val/loss")
    points = tables.points(rows_, {"params": "size", "loss": "val/loss"}, needed=("params", "loss"))
    found = fit(power, points)
    np.testing.assert_allclose([found["E"], found["A"], found["alpha"]], [1.5, 400, 1.0], rtol=1e-6)


def test_config_that_one_run_lacks(tmp_path):
    text = '{"run": "a", "step": 1, "loss": 2, "config.decay": NaN}\n{"run": "b", "step": 1, "loss": 2, "config.decay": 0.5}\n'
    found = to_rows(read_trajectories(write(tmp_path, text, "runs.jsonl")), "loss")
    assert records(found, "run", "decay") == [("a", None), ("b", 0.5)]


def test_a_number_beyond_all_floats_is_no_number(tmp_path):
    path = write(tmp_path, '{"step": 1, "loss": 2}\n{"step": 2, "loss": 1%s}\n' % ("0" * 400), "runs.jsonl")  # noqa: UP031
    refused(path, ", line 2, column 'loss': 1000")
