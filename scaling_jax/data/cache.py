"""Arrays kept in files that are complete and as they were written, or are not used.

A file is 32 bytes of sha256, 8 of length, then an .npz. The checksum covers what the file is for, so that one kept file put in the
place of another is refused like a torn one.
"""

import hashlib
import io
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

_HEAD = 40


def save(path, arrays, purpose, scratch=None):
    """Writes `arrays` {name: array} to `path`, complete or not at all; two writers of one path do not disturb each other.

    Args:
      purpose: text that `load` must be given again.
      scratch: folder on the same file system for the unfinished file; what a kill leaves there is for the caller to remove.
    Raises:
      OSError: it cannot be written (no space, no permission); nothing is left behind.
    """
    payload = io.BytesIO()
    np.savez(payload, **arrays)
    body = payload.getvalue()
    scratch = Path(scratch or path.parent)
    for last in (False, True):
        scratch.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=scratch, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_checksum(body, purpose) + len(body).to_bytes(8, "little") + body)
            os.replace(name, path)
            return
        except FileNotFoundError:  # a process that built the same has just removed the folder
            if last:
                raise
        finally:
            Path(name).unlink(missing_ok=True)


def load(path, purpose, remedy):
    """The arrays that `save` was given, or None where there are none; a damaged file is named on stderr, with `remedy`, and never used."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        say(f"{path}: cannot be read ({error.strerror}); {remedy}")
        return None
    body, length = content[_HEAD:], int.from_bytes(content[32:_HEAD], "little")
    if len(content) < _HEAD or len(body) < length:
        say(f"{path}: torn, it ends after {len(content)} bytes{f' of {_HEAD + length}' if len(content) >= _HEAD else ''}; {remedy}")
    elif len(body) > length or _checksum(body, purpose) != content[:32]:
        say(f"{path}: damaged or edited, its {len(content)} bytes do not have the checksum they were written with; {remedy}")
    else:
        with np.load(io.BytesIO(body), allow_pickle=False) as file:
            return dict(file)
    return None


def say(text):
    """A line for the user on stderr."""
    print(f"scaling-jax: {text}", file=sys.stderr, flush=True)


def _checksum(body, purpose):
    seen = hashlib.sha256(purpose.encode() + b"\0" + len(body).to_bytes(8, "little"))
    seen.update(body)
    return seen.digest()
