"""One process per directory, and a process that is asked to stop."""

import os
import signal
import subprocess
import sys

import pytest

from scaling_jax import exits
from scaling_jax.records import ConfigError
from scaling_jax.train import lock, preemption

HOLD = "import sys\nfrom scaling_jax.train import lock\nwith lock.held(sys.argv[1]):\n    print('held', flush=True)\n    sys.stdin.read()\n"


def test_the_second_process_is_refused_by_the_name_of_the_first(tmp_path):
    first = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=rf"in use by process {first.pid} on .* since .*; wait for it, or choose another directory"):
        with lock.held(tmp_path):
            pass
    first.kill()  # the system lets go of it
    first.communicate()
    with lock.held(tmp_path):
        pass


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        with lock.held(tmp_path / "file" / "below"):
            pass


def test_asked_to_stop_it_stops_where_that_loses_nothing():
    with preemption.watched():
        preemption.obey("nothing")
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.asked()
        with pytest.raises(preemption.Preempted, match="step 3"):
            preemption.obey("step 3")
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "a second signal kills"
    assert not preemption.asked()


@pytest.mark.parametrize(
    "error, status, words",
    [
        (ConfigError("config.x = 3: expected 4"), 2, "config.x = 3"),
        (preemption.Preempted("checkpoint at step 4 of 9"), 75, "saved: checkpoint at step 4 of 9. The same command goes on"),
        (OSError(28, "No space left on device", "/data/x"), 1, "/data/x could not be written: No space left on device"),
        (ValueError("INTERNAL: Error writing: No space left on device"), 1, "a checkpoint could not be written: No space left on device"),
        (KeyboardInterrupt(), 75, "interrupted; the same command goes on"),
    ],
)
def test_what_the_shell_sees(capsys, error, status, words):
    def command():
        raise error

    assert exits.code(command, resumable=True) == status
    err = capsys.readouterr().err
    assert words in err and len(err.strip().splitlines()) == 1


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        exits.code(lambda: 1 / 0)
