"""What may happen to a working directory, and what must then be true of it: the parts of `make chaos` and of its short form."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from scaling_jax import config as cfg
from scaling_jax.records import DamageError
from scaling_jax.train import checkpoint, loop, trajectory
from scaling_jax.train.progress import Progress

PROVENANCE = ("provenance",)  # the only part of verdict.json that may differ: when, where, how long


@dataclass
class Tally:
    """Of one kind of damage: how often it was done, and what then came out."""

    name: str
    done: int = 0
    noticed: int = 0  # named in an error or a note
    same: int = 0  # afterwards equal to the undisturbed directory
    different: int = 0  # anything else: a defect
    what: str = ""

    def row(self):
        return f"{self.name:44s} {self.done:5d} {self.noticed:8d} {self.same:6d} {self.different:10d}  {self.what}"


HEAD = f"{'what was done':44s} {'times':>5s} {'noticed':>8s} {'same':>6s} {'different':>10s}"


def command(study, workdir):
    return [sys.executable, "-m", "scaling_jax.cli", "study", study, "--scale=smoke", f"--workdir={workdir}"]


def start(study, workdir):
    return subprocess.Popen(command(study, workdir), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def promised(workdir):
    """Everything of a study's directory that must not depend on how often it was killed: name -> comparable value."""
    workdir, out = Path(workdir), {}
    for run in sorted((workdir / "runs").iterdir()):
        name = f"runs/{run.name}"
        out[f"{name}/result"] = trajectory.read_result(run)
        if (run / "trajectory").is_dir():
            out[f"{name}/trajectory"] = trajectory.read(run).to_json(double_precision=15)
        if (run / "params").is_dir():
            params = checkpoint.load_params(run / "params")
            out |= {
                f"{name}/params{jax.tree_util.keystr(k)}": np.asarray(v).tobytes() for k, v in jax.tree_util.tree_leaves_with_path(params)
            }
    for file in ("plan.json", "rows.csv", "fit.json"):
        out[file] = (workdir / file).read_text(encoding="utf-8")
    verdict = trajectory.read_json(workdir / "verdict.json")
    out["verdict.json"] = json.dumps({name: value for name, value in verdict.items() if name not in PROVENANCE}, sort_keys=True)
    return out


def differences(one, other):
    """Names of what differs between two `promised`; nan equals nan."""
    return sorted(name for name in {*one, *other} if repr(one.get(name)) != repr(other.get(name)))


def kills(study, whole, home, count, seed, seconds):
    """Starts the study anew whenever it was killed, until `count` kills landed in it; compares every finished directory.

    Args:
      whole: `promised` of an undisturbed directory. seconds: what a start takes that is not disturbed; kills fall evenly in it.
    """
    rng, tally, directory = random.Random(seed), Tally(f"kill -9, {study}"), 0
    while tally.done < count:
        workdir = Path(home) / f"killed_{directory}"
        directory += 1
        finished = False
        while not finished:
            process = start(study, workdir)
            try:
                error = process.communicate(timeout=None if tally.done >= count else rng.uniform(0.1, 1.0) * seconds)[1]
                finished = process.returncode == 0
                if not finished:
                    tally.different, tally.what = tally.different + 1, f"exit {process.returncode}: {error.strip().splitlines()[-1:]}"
                    break
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                tally.done += 1
        if finished:
            _judge(tally, differences(whole, promised(workdir)))
        shutil.rmtree(workdir, ignore_errors=True)
    return tally


def _judge(tally, names):
    if names:
        tally.different += 1
        tally.what = f"{len(names)} differ, such as {names[0]}"
    else:
        tally.same += 1


def at_work(process, workdir):
    """Waits until the process holds its directory."""
    while not ((workdir / ".lock").is_file() and str(process.pid) in (workdir / ".lock").read_text(encoding="utf-8")):
        time.sleep(0.02)
        assert process.poll() is None, process.stderr.read()


def terminated(study, whole, home, times=3):
    """SIGTERM to a study at work: exit 75, or 0 where it was done; then the same command to the end."""
    tally, workdir = Tally(f"SIGTERM, {study}"), Path(home) / "terminated"
    for wait in (0.0, *(0.3 * i for i in range(1, times))):
        process = start(study, workdir)
        at_work(process, workdir)
        time.sleep(wait)
        process.send_signal(signal.SIGTERM)
        error = process.communicate()[1]
        tally.done += 1
        if process.returncode == 75 and "asked to stop; saved: " in error:
            tally.noticed += 1
        elif process.returncode:
            tally.different, tally.what = tally.different + 1, f"exit {process.returncode}"
    start(study, workdir).communicate()
    _judge(tally, differences(whole, promised(workdir)))
    shutil.rmtree(workdir)
    return tally


def two_at_once(study, whole, home):
    """A second process in the directory of the first: refused, naming it."""
    tally, workdir = Tally("a second process in the same directory", done=1), Path(home) / "shared"
    first = start(study, workdir)
    at_work(first, workdir)
    second = subprocess.run(command(study, workdir), capture_output=True, text=True)
    first.communicate()
    if second.returncode == 2 and f"process {first.pid} on" in second.stderr:
        tally.noticed += 1
    else:
        tally.different, tally.what = 1, f"exit {second.returncode}: {second.stderr[-200:]}"
    _judge(tally, differences(whole, promised(workdir)))
    shutil.rmtree(workdir)
    return tally


class Stop(Exception):
    """A kill in the middle of training."""


class Killer(Progress):
    """Raises `Stop` once `step` steps are reported."""

    def __init__(self, at):
        super().__init__(quiet=True)
        self.at = at

    def advance(self, name, work, flops, tokens, seconds, step, steps, loss):
        if step >= self.at:
            raise Stop


class Notes(Progress):
    """Keeps what is printed."""

    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def print(self, text, style=None):
        self.lines.append(text)


def flipped_checkpoints(run, corpus, home, at, every=1):
    """One byte flipped in each file of the newest checkpoint in turn: noticed and set aside, or without any effect; never a wrong number.

    Args:
      run: a bound run. at: step of the kill, after the second checkpoint. every: take each file of so many.
    """
    home, tally = Path(home), Tally("a flipped byte in a file of the checkpoint")
    identity = cfg.identity(run, corpus)
    loop.train([run], corpus, home / "whole", Progress(quiet=True))
    expected = _of_run(home / "whole", identity)
    try:
        loop.train([run], corpus, home / "killed", Killer(at))
    except Stop:
        pass
    folder = home / "killed" / "cohorts" / loop.cohort_id([identity]) / "checkpoints"
    newest = max((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    files = sorted(p.relative_to(home / "killed") for p in newest.rglob("*") if p.is_file() and p.stat().st_size)
    rng = random.Random(0)
    for file in files[::every]:
        shutil.rmtree(home / "again", ignore_errors=True)
        shutil.copytree(home / "killed", home / "again")
        _flip(home / "again" / file, rng)
        notes = Notes()
        loop.train([run], corpus, home / "again", notes)
        tally.done += 1
        tally.noticed += any("set aside" in line for line in notes.lines)
        _judge(tally, differences(expected, _of_run(home / "again", identity)))
    shutil.rmtree(home)
    return tally


def flipped_artifacts(run, corpus, home):
    """One byte flipped in each file of a finished run in turn: what is read is refused by name, or it is what was saved."""
    home, tally = Path(home), Tally("a flipped byte in a file of a finished run")
    identity = cfg.identity(run, corpus)
    loop.train([run], corpus, home / "whole", Progress(quiet=True))
    expected = _of_run(home / "whole", identity)
    folder = home / "whole" / "runs" / identity
    rng = random.Random(1)
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size and p.name not in ("timings.jsonl", "config.json")):
        before = file.read_bytes()
        _flip(file, rng)
        tally.done += 1
        try:
            found = _of_run(home / "whole", identity)
            _judge(tally, differences(expected, found))
        except DamageError as error:
            tally.noticed += 1
            tally.same += str(folder) in str(error)
        file.write_bytes(before)
    shutil.rmtree(home)
    return tally


def _of_run(workdir, identity):
    folder = Path(workdir) / "runs" / identity
    params = checkpoint.load_params(folder / "params")
    out = {jax.tree_util.keystr(k): np.asarray(v).tobytes() for k, v in jax.tree_util.tree_leaves_with_path(params)}
    return out | {"result": trajectory.read_result(folder), "trajectory": trajectory.read(folder).to_json(double_precision=15)}


def _flip(path, rng):
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    os.chmod(path, 0o644)
    path.write_bytes(data)
