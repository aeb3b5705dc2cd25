"""The training loop: a cohort of runs that share a program, from first batch to saved result.

A lone run is a cohort of one. The loop owns the order of things (batch, step, log, checkpoint, evaluate);
what a step is stands in step.py, what a member axis is in parallel/members.py.
"""

import contextlib
import functools
import json
import time
from pathlib import Path

import jax
import numpy as np

from scaling_jax import config as cfg
from scaling_jax import records
from scaling_jax.data import stream
from scaling_jax.parallel import cost, members
from scaling_jax.train import checkpoint, preemption, step, trajectory
from scaling_jax.train import state as states

SCHEMA = 1


def train(runs, corpus, workdir, progress, name="run"):
    """Trains the bound `runs` (one program, one number of steps) as one cohort; skips nothing, resumes what it finds.

    Writes below `workdir`: `cohorts/<id>/{members.json,checkpoints/}` and, per run,
    `runs/<identity>/{config.json,trajectory/,timings.jsonl,params/,result.json}`; result.json comes last and
    marks the run as done.
    Returns:
      {identity: metrics}: the last training loss and every split's loss, nats per token; where train.evaluate_every is set, also
      "evaluations", as trajectory.evaluations gives them.
    """
    ids = [cfg.identity(run, corpus) for run in runs]
    first, steps = runs[0], runs[0].train.steps
    assert len({(cfg.program_key(run), run.train.steps) for run in runs}) == 1, "runs of one cohort share program and steps"
    how = members.resolve(first.train.members)
    start, train_step, evaluate = _programs(states.static(first), how)
    hypers = members.gather([states.hyper(run) for run in runs], how)
    home, folders = _folders(runs, ids, corpus, workdir, how)

    with contextlib.ExitStack() as stack:
        saved = checkpoint.Checkpoints(home / "checkpoints")
        stack.callback(saved.close)
        begin, state = _restore(saved, start, hypers, how, progress)
        writers = [trajectory.Writer(folder / "trajectory", begin) for folder in folders]
        for writer in writers:
            stack.callback(writer.close)
        windows = {split: stream.evaluation(corpus, first.data, split) for split in first.train.evaluate}
        batches = stream.Batches(corpus, first.data, [run.seed for run in runs], [run.data for run in runs])
        epoch = first.data.batch / np.array([stream.unique_sequences(corpus, run.data) for run in runs])  # of one step
        report = _reporter(runs, folders, progress, name, begin)
        held = []

        for index, batch in stream.stream(batches, begin, steps):
            state, metrics = train_step(state, batch if how != "loop" else list(batch), hypers)
            done = index + 1
            evaluated = done == steps or (first.train.evaluate_every and done % first.train.evaluate_every == 0)
            if done % first.train.log_every == 0 or evaluated:
                values = [jax.device_get(m) for m in members.split(metrics, how)]
                held = [{"epoch": done * e, **{_named(k): v for k, v in value.items()}} for e, value in zip(epoch, values, strict=True)]
                if evaluated:
                    held = [h | loss for h, loss in zip(held, _evaluate(evaluate, state, windows, how), strict=True)]
                for writer, line in zip(writers, held, strict=True):
                    writer.log(done, line)
                report(done, held)
            if done < steps and (done % first.train.checkpoint_every == 0 or preemption.asked()):
                # Sealed first: a segment ahead of the newest checkpoint is dropped on resume, one behind it must exist.
                for writer in writers:
                    writer.seal(done)
                saved.save(done, _stacked(state, how))
                preemption.obey(f"{name}: checkpoint at step {done} of {steps}")

        results = [{k: float(v) for k, v in line.items()} for line in held]
        for folder, writer, member, metrics in zip(folders, writers, members.split(state, how), results, strict=True):
            checkpoint.save_params(folder / "params", member.params)
            writer.seal(steps)
            if first.train.evaluate_every and first.train.evaluate:
                metrics["evaluations"] = trajectory.evaluations(folder, first.train.evaluate)
            trajectory.write_result(folder, "train", metrics)
    return dict(zip(ids, results, strict=True))


def result(workdir, identity):
    """The metrics of a finished unit, or None."""
    return trajectory.read_result(Path(workdir) / "runs" / identity)


def cohort_id(ids):
    """A cohort's name: the hash of its members' identities, in order."""
    return records.digest(list(ids))


@functools.lru_cache(maxsize=64)
def _programs(run, how):
    """The three jitted programs of a static config: start, train_step, evaluate, each over all members."""
    start = members.over_members(lambda hyper: states.start(run, hyper), how)
    train_step = members.over_members(lambda state, batch, hyper: step.train_step(run, state, batch, hyper), how, donate=(0,))
    evaluate = members.over_members(lambda params, windows: step.evaluate(run, params, windows), how)
    return start, train_step, evaluate


def _folders(runs, ids, corpus, workdir, how):
    """Makes the folders of a cohort and of its runs, and writes what they hold: (cohort's, [run's])."""
    folders = [Path(workdir) / "runs" / identity for identity in ids]
    for folder, run in zip(folders, runs, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        trajectory.write_json(folder / "config.json", {"schema": SCHEMA, "config": records.to_dict(run), "corpus": corpus.fingerprint})
    home = Path(workdir) / "cohorts" / cohort_id(ids)
    home.mkdir(parents=True, exist_ok=True)
    trajectory.write_json(home / "members.json", {"schema": SCHEMA, "members": ids, "how": how})
    return home, folders


def _reporter(runs, folders, progress, name, begin):
    """`report(steps done, [metrics])`: a line in every run's timings.jsonl, and what a person sees."""
    data, steps = runs[0].data, runs[0].train.steps
    flops = sum(cost.of_run(run).flops for run in runs) / steps
    work, tokens = cost.expected_seconds(runs) / steps, len(runs) * data.batch * data.sequence
    clock, last = time.perf_counter(), begin

    def report(done, held):
        nonlocal clock, last
        new, seconds = done - last, time.perf_counter() - clock
        line = json.dumps({"step": done, "seconds": seconds, "tokens_per_second": tokens * new / seconds})
        for folder in folders:
            with open(folder / "timings.jsonl", "a", encoding="utf-8") as file:
                file.write(line + "\n")
        loss = float(np.mean([h["train/loss"] for h in held]))
        progress.advance(name, work * new, flops * new, tokens * new, seconds, done, steps, loss)
        clock, last = time.perf_counter(), done

    return report


def _restore(saved, start, hypers, how, progress):
    """(steps done, state): the newest checkpoint that is whole, or a fresh start."""
    state = start(hypers)
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), _stacked(state, how))
    step, found, notes = saved.restore(like)
    for note in notes:
        progress.print(note, style="yellow")
    if step is None:
        return 0, state
    return step, members.split(found, "map") if how == "loop" else found


def _stacked(state, how):
    """Checkpoints hold one tree with a member axis, however the members run."""
    return members.stack(state) if how == "loop" else state


def _evaluate(evaluate, state, windows, how):
    """[{split/loss: nats per token}] per member."""
    params = [s.params for s in state] if how == "loop" else state.params
    count = len(params) if how == "loop" else len(jax.tree.leaves(params)[0])
    out = {}
    for split, tokens in windows.items():
        losses = evaluate(params, members.gather([tokens] * count, how))
        out[f"{split}/loss"] = np.asarray(jax.device_get(losses))
    return [{split: values[i] for split, values in out.items()} for i in range(count)]


def _named(metric):
    """Metrics of the objective are of the training batch; the loss says so."""
    return "train/loss" if metric == "loss" else metric
