"""Disks that refuse: full (by the limit on a file's size that every Unix has), and read-only (where the rights of the process allow)."""

import os
import subprocess
import sys
from pathlib import Path

from scaling_jax import config as cfg
from scaling_jax.train import loop
from scaling_jax.train.progress import Progress
from tests.chaos.damage import Tally, _judge, _of_run, differences

TRAIN = """
import resource, sys
limit, workdir = int(sys.argv[1]), sys.argv[2]
from scaling_jax import exits, config as cfg
from scaling_jax.train import lock, loop
from scaling_jax.train.progress import Progress
from tests.train.test_loop import bound
run, corpus = bound()
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
def command():
    with lock.held(workdir):
        loop.train([run], corpus, workdir, Progress(quiet=True))
    return 0

sys.exit(exits.code(command, resumable=True))
"""


def refused(run, corpus, home):
    """A Tally for each way a disk refuses: an error in one line, then the same command to the same end."""
    home = Path(home)
    identity = cfg.identity(run, corpus)
    loop.train([run], corpus, home / "whole", Progress(quiet=True))
    expected = _of_run(home / "whole", identity)
    tally = Tally("a disk that takes no more of a file")
    for limit in (60, 400, 1_500, 4_000):
        workdir = home / f"limit_{limit}"
        done = _train(limit, workdir)
        tally.done += 1
        if done.returncode == 0:
            tally.what = f"{limit} bytes were enough"
        elif (
            done.returncode in (1, 2)
            and "\nscaling-jax: " in f"\n{done.stderr}"
            and 'Traceback (most recent call last):\n  File "<string>' not in done.stderr
        ):
            tally.noticed += 1
        else:
            tally.different, tally.what = tally.different + 1, f"{limit} bytes: exit {done.returncode}: {done.stderr[-300:]}"
        again = _train(0, workdir)
        if again.returncode:
            tally.different, tally.what = tally.different + 1, again.stderr[-300:]
        else:
            _judge(tally, differences(expected, _of_run(workdir, identity)))
    yield tally
    if os.geteuid() != 0:  # root writes where it may not
        tally, workdir = Tally("a directory without the right to write", done=1), home / "readonly"
        workdir.mkdir()
        workdir.chmod(0o500)
        done = _train(0, workdir)
        tally.noticed += done.returncode in (1, 2) and "cannot be written" in done.stderr
        tally.different += not tally.noticed
        yield tally


def _train(limit, workdir):
    return subprocess.run([sys.executable, "-c", TRAIN, str(limit), str(workdir)], capture_output=True, text=True)
