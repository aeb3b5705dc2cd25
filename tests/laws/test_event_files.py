"""TensorBoard's event files, written by TensorBoard's own writers."""

import math
import struct
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.summary import Writer
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from scaling_jax.laws.trajectories import read_trajectories, to_rows
from scaling_jax.records import ConfigError

LOSSES = {10: 3.5, 20: 2.25, 30: 1.75}  # exact in float32


def write(folder, points=LOSSES, tag="val/loss"):
    """One event file, as a job writes it; its path."""
    before = set(folder.glob("*")) if folder.is_dir() else set()
    writer = Writer(str(folder))
    for step, value in points.items():
        writer.add_scalar(tag, value, step)
    writer.close()
    return (set(folder.glob("*")) - before).pop()


def write_events(folder, *events, suffix=""):
    writer = EventFileWriter(str(folder), filename_suffix=suffix)
    for event in events:
        writer.add_event(event)
    writer.close()


def plain(step, value, tag="val/loss"):
    """A scalar as torch and older TensorFlow write it."""
    return event_pb2.Event(step=step, summary=summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, simple_value=value)]))


def logged(found, run, metric="val/loss"):
    return found.series[run][metric].to_dict()


def test_a_folder_of_runs(tmp_path):
    write(tmp_path / "sweep" / "a")
    write(tmp_path / "sweep" / "a", {10: 3.0}, "train/loss")
    write_events(tmp_path / "b", *(plain(step, value + 1) for step, value in LOSSES.items()))
    write(tmp_path)
    found = read_trajectories(tmp_path)
    assert set(found.series) == {"sweep/a", "b", tmp_path.name} and found.notes == ()
    assert logged(found, "sweep/a") == LOSSES == logged(found, tmp_path.name) and logged(found, "sweep/a", "train/loss") == {10: 3.0}
    assert logged(found, "b") == {step: value + 1 for step, value in LOSSES.items()}
    assert found.frame.groupby("run")["step"].agg(list)["b"] == [10, 20, 30]
    assert read_trajectories(tmp_path, metrics="train/loss").metrics == ("train/loss",)
    assert "val/loss" not in read_trajectories(tmp_path, metrics="train/loss").series["b"]


def test_one_file_and_what_is_no_scalar(tmp_path):
    path = write(tmp_path / "run")
    assert list(read_trajectories(path).series) == ["run"]
    text = summary_pb2.Summary.Value(tag="text")
    text.tensor.dtype = 7
    text.tensor.string_val.append(b"x")
    histogram = summary_pb2.Summary.Value(tag="histogram")
    histogram.tensor.dtype = 1
    histogram.tensor.tensor_shape.dim.add(size=2)
    histogram.tensor.float_val.extend([1.0, 2.0])
    write_events(tmp_path / "other", event_pb2.Event(step=1, summary=summary_pb2.Summary(value=[text, histogram])), plain(1, 2.0))
    assert read_trajectories(tmp_path / "other").metrics == ("val/loss",)


def test_hyper_parameters_are_the_config(tmp_path):
    write(tmp_path / "run")
    summary = hparams.hparams_pb({"lr": 0.5, "optimizer": "adamw", "tied": True})
    write_events(tmp_path / "run", event_pb2.Event(summary=summary), suffix=".hparams")
    found = read_trajectories(tmp_path)
    assert found.config == {"run": {"lr": 0.5, "optimizer": "adamw", "tied": True}}
    assert to_rows(found).iloc[0].to_dict() == {
        "run": "run", "step": 30, "val/loss": 1.75, "lr": 0.5, "optimizer": "adamw", "tied": True, "note": "",
    }  # fmt: skip


def test_a_record_that_was_never_finished(tmp_path):
    """Cut at any byte of its last record, a file gives what stands before it, and a note."""
    path = write(tmp_path / "run")
    whole = path.read_bytes()
    last = len(whole) - 16 - len(event_pb2.Event.FromString(_content(whole, -1)).SerializeToString())
    for end in range(last + 1, len(whole)):
        path.write_bytes(whole[:end])
        found = read_trajectories(tmp_path)
        assert logged(found, "run") == {10: 3.5, 20: 2.25}
        assert len(found.notes) == 1 and f"{path}: its last record was not written to the end (after step 20)" in found.notes[0]
    path.write_bytes(whole[:last])
    assert read_trajectories(tmp_path).notes == ()


def _content(data, number):
    records, at = [], 0
    while at < len(data):
        length = struct.unpack("<Q", data[at : at + 8])[0]
        records.append(data[at + 12 : at + 12 + length])
        at += 16 + length
    return records[number]


@pytest.mark.parametrize("record, step, kept", [(2, 10, {10: 3.5}), (3, 20, {10: 3.5, 20: 2.25})])
def test_a_changed_byte_is_an_error(record, step, kept, tmp_path):
    """Wherever in the record of the second or of the last point: in its length, its checksums or its content."""
    path = write(tmp_path / "run")
    whole = path.read_bytes()
    start = sum(16 + len(_content(whole, i)) for i in range(record))
    for at in range(start, start + 16 + len(_content(whole, record))):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ConfigError) as caught:
            read_trajectories(tmp_path)
        assert f"{path}: damaged at byte {start} of {len(whole)}, after step {step}" in str(caught.value)
    found = read_trajectories(tmp_path, partial=True)
    assert logged(found, "run") == kept and "what follows is left out" in found.notes[0]


def test_what_is_no_event_file(tmp_path):
    (tmp_path / "events.out.tfevents.1").write_bytes(b"something else entirely")
    with pytest.raises(ConfigError, match="events.out.tfevents.1: not an event file"):
        read_trajectories(tmp_path)
    (tmp_path / "runs.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(ConfigError, match="holds event files and tables, name one of them"):
        read_trajectories(tmp_path)


def test_restarts(tmp_path):
    """Told of a restart, the steps behind it are dropped, as in TensorBoard; untold, the later value wins and both are notes."""
    start = event_pb2.Event(step=20, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))
    first = [plain(step, value) for step, value in LOSSES.items()]
    write_events(tmp_path / "told", *first, suffix=".0")
    write_events(tmp_path / "told", start, plain(20, 9.0), suffix=".1")
    write_events(tmp_path / "untold", *first, plain(20, 9.0))
    found = read_trajectories(tmp_path)
    assert logged(found, "told") == {10: 3.5, 20: 9.0} and logged(found, "untold") == {10: 3.5, 20: 9.0, 30: 1.75}
    theirs = EventAccumulator(str(tmp_path / "told")).Reload().Scalars("val/loss")
    assert {event.step: event.value for event in theirs} == logged(found, "told")
    told, again, back = found.notes
    assert told == "run 'told': restarted at step 20; values logged before at that step or later are dropped: 2"
    assert again == "run 'untold': values logged again at a step that had one: 1 (first val/loss at 20); the last is kept"
    assert back.startswith("run 'untold': steps go back, first from 30 to 20 (val/loss)") and "those above 20" in back


def test_nan_is_kept(tmp_path):
    write(tmp_path / "run", {10: 3.0, 20: math.nan, 30: math.inf})
    found = read_trajectories(tmp_path)
    values = found.series["run"]["val/loss"].tolist()
    assert values[0] == 3.0 and math.isnan(values[1]) and values[2] == math.inf
    assert found.notes == ("run 'run': val/loss is not finite at 2 of 3 steps, first at 20",)
    assert to_rows(found).note[0] == "val/loss is not finite at 2 of 3 steps, first at 20"


def test_a_run_without_scalars_is_kept(tmp_path):
    write(tmp_path / "run")
    write_events(tmp_path / "empty")
    rows = to_rows(read_trajectories(tmp_path), "val/loss").set_index("run")
    assert rows["note"].to_dict() == {"empty": "val/loss was never logged", "run": ""}


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorboard.backend.event_processing.event_file_loader", None)
    with pytest.raises(ConfigError, match=r"needs TensorBoard: pip install 'scaling_jax\[tensorboard\]'"):
        read_trajectories(tmp_path)
