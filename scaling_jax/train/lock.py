"""One process at a time in a working directory: a lock the system releases with the process, however that ends."""

import contextlib
import fcntl
import json
import os
import shlex
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

from scaling_jax.records import ConfigError

NAME = ".lock"


@contextlib.contextmanager
def held(workdir):
    """Holds the directory, made where it is missing, as long as the block runs.

    Raises:
      ConfigError: another process holds it (named by its id, host, start and command), or the directory cannot be written.
    """
    path = Path(workdir) / NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--workdir={workdir}: cannot be written ({error.strerror}); choose a directory of yours") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"--workdir={workdir}: in use by {_holder(file)}; wait for it, or choose another directory") from None
        file.truncate(0)
        file.write(json.dumps(_self()))
        file.flush()
        yield  # the file stays, empty or stale: to delete it would let a third process lock another file of the same name


def _self():
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": shlex.join(sys.argv)}


def _holder(file):
    file.seek(0)
    try:
        who = json.loads(file.read())
        return f"process {who['pid']} on {who['host']} since {who['since']} ({who['command']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
