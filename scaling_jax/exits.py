"""How a command ends: 0 done, 1 failed, 2 the user's mistake, 75 preempted or interrupted and resumable; failures in one line."""

import contextlib
import errno
import os
import sys

from scaling_jax.records import ConfigError, DamageError

REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO)  # by a disk or its rights


def code(command, resumable=False):
    """Runs `command()`, which returns an exit code; what the user can mend becomes one line on stderr.

    Args:
      resumable: the command saves as it goes, so that SIGTERM means: save, and exit with 75.
    """
    from scaling_jax.train import preemption

    try:
        with preemption.watched() if resumable else contextlib.nullcontext():
            return command()
    except ConfigError as error:
        return _say(error, 2)
    except DamageError as error:
        return _say(error, 1)
    except preemption.Preempted as saved:
        return _say(f"asked to stop; saved: {saved}. The same command goes on", preemption.EXIT)
    except KeyboardInterrupt:
        return _say(
            "interrupted; the same command goes on: what is finished is kept, a run in progress continues from its last "
            "checkpoint (every config.train.checkpoint_every steps), or else from its start",
            preemption.EXIT,
        )
    except Exception as error:
        if (why := refused(error)) is None:
            raise
        return _say(f"{why}. What was saved before is intact; once that is mended, the same command goes on", 1)


def refused(error):
    """What the file system refused, in words, or None. Orbax and TensorStore wrap it in errors of their own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in REFUSED:
            what = "written" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG) else "read or written"
            return f"{error.filename or 'a file'} could not be {what}: {error.strerror}"
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
            if os.strerror(number) in str(error):
                return f"a checkpoint could not be written: {os.strerror(number)}"
        error = error.__cause__ or error.__context__
    return None


def _say(text, status):
    print(f"scaling-jax: {text}", file=sys.stderr)
    return status
