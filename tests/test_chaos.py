"""The short form of `make chaos` (tests/chaos): kills, flipped bytes, SIGTERM, a second process, a full disk."""

import time

import pytest

from tests.chaos import damage, disks
from tests.train.test_loop import bound

# After a failed read Orbax closes its event loop under reads that are still going on; they complain into the void.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def clean(tally):
    assert tally.done and not tally.different, tally.row()
    return tally


def test_a_flipped_byte_in_a_checkpoint_is_never_restored(tmp_path):
    tally = clean(damage.flipped_checkpoints(*bound(), tmp_path / "flips", at=20, every=2))
    assert tally.noticed and tally.same == tally.done


def test_a_flipped_byte_in_a_finished_run_is_named(tmp_path):
    tally = clean(damage.flipped_artifacts(*bound(), tmp_path / "flips"))
    assert tally.noticed and tally.same == tally.done


@pytest.mark.full
def test_a_full_disk_loses_nothing(tmp_path):
    for tally in disks.refused(*bound(), tmp_path / "disks"):
        assert clean(tally).noticed


@pytest.mark.full
def test_a_study_killed_or_asked_to_stop_ends_as_if_it_were_not(tmp_path):
    study = "infinite_compute"
    damage.start(study, tmp_path / "whole").communicate()
    whole = damage.promised(tmp_path / "whole")
    begin = time.perf_counter()
    damage.start(study, tmp_path / "warm").communicate()
    seconds = time.perf_counter() - begin
    assert clean(damage.two_at_once(study, whole, tmp_path)).noticed == 1
    assert clean(damage.terminated(study, whole, tmp_path)).noticed
    clean(damage.kills(study, whole, tmp_path, 4, 0, seconds))
