"""Preemption: SIGTERM asks a process to stop; it saves what it has, says so, and exits with 75. The same command goes on."""

import contextlib
import signal
import threading

EXIT = 75  # EX_TEMPFAIL of sysexits.h: try again
_asked = threading.Event()


class Preempted(Exception):
    """The process was asked to stop, and everything it had is saved."""


@contextlib.contextmanager
def watched(signals=(signal.SIGTERM,)):
    """Within it a signal is noted for `obey` instead of killing the process; a second one kills it as it would have."""
    before = {}

    def note(number, frame):
        _asked.set()
        signal.signal(number, before[number])

    _asked.clear()
    for number in signals:
        before[number] = signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


def asked():
    """Whether the process was asked to stop."""
    return _asked.is_set()


def obey(saved):
    """Raises Preempted where the process was asked to stop; `saved` says what lies on disk."""
    if asked():
        raise Preempted(saved)
