"""`make chaos`: everything that may happen to a working directory, many times; a table, and red on any difference.

python -m tests.chaos [--kills 50] [--study infinite_compute] [--seed 0]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos import damage, disks
from tests.train.test_loop import bound


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--study", default="infinite_compute")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(damage.HEAD)
    bad = 0
    with tempfile.TemporaryDirectory() as home:
        for tally in every(args, Path(home)):
            print(tally.row(), flush=True)
            bad += tally.different
    print("no difference" if not bad else f"{bad} differences")
    return 1 if bad else 0


def every(args, home):
    """All kinds of damage, one Tally each."""
    run, corpus = bound()
    yield damage.flipped_checkpoints(run, corpus, home / "checkpoints", at=20)
    yield damage.flipped_artifacts(run, corpus, home / "artifacts")
    yield from disks.refused(run, corpus, home / "disks")
    undisturbed = home / "undisturbed"
    damage.start(args.study, undisturbed).communicate()
    whole = damage.promised(undisturbed)
    begin = time.perf_counter()
    damage.start(args.study, home / "again").communicate()  # compiled by now: how long a start takes
    seconds = time.perf_counter() - begin
    yield damage.two_at_once(args.study, whole, home)
    yield damage.terminated(args.study, whole, home)
    yield damage.kills(args.study, whole, home, args.kills, args.seed, seconds)


if __name__ == "__main__":
    sys.exit(main())
