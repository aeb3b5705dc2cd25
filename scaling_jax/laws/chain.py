"""An append-only file of JSON lines that notices an edit: each line carries the sha256 of the line before it and its own.

A chain alone cannot tell that its last lines are gone. A second file, FILE.head, holds the number of lines and the last digest; a line
more than it says is a write that was cut off between the two, a line fewer is a removal. Who rewrites both from the first line on is
noticed only by a digest that was published: `Book.head`.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from scaling_jax.records import ConfigError

NOTHING = "0" * 64  # what the first line follows


def canonical(value):
    """JSON of one spelling: sorted keys, no spaces, floats by repr, no nan."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256(value):
    """sha256 of the canonical JSON of `value`, 64 hex digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


@dataclass
class Book:
    """A register that is open: `entries`, checked, oldest first; `append(entry)` adds one while it is locked for writing."""

    path: Path
    entries: list
    handle: int

    @property
    def head(self):
        """The digest of the last line, which stands for all of them."""
        return self.entries[-1]["sha256"] if self.entries else NOTHING

    def append(self, entry):
        """Writes one more line, `entry` with the digests; it is on the disk when this returns, or not there at all."""
        entry = {**entry, "previous": self.head}
        entry["sha256"] = sha256(entry)
        line, size = (canonical(entry) + "\n").encode(), os.fstat(self.handle).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self.handle, line[written:])
            os.fsync(self.handle)
        except OSError:
            os.ftruncate(self.handle, size)  # half a line would lock everybody out
            raise
        self.entries.append(entry)
        _write_head(self.path, self.entries)
        return entry


@contextlib.contextmanager
def opened(path, write=False):
    """The Book of a register, locked against other processes as long as it is open; `write` makes it where it does not exist.

    Raises:
      ConfigError: there is none, or it has been edited: names the line.
    """
    path = Path(path)
    if not path.parent.is_dir() or path.is_dir() or not (write or path.is_file() or _head(path).exists()):
        raise ConfigError(f"register = {str(path)!r}: no such file; give a path in a directory that exists")
    with contextlib.ExitStack() as stack:
        # the head is replaced, the register never: its lock is the lock of both
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644) if write else _open(path)
        stack.callback(os.close, handle)
        fcntl.flock(handle, fcntl.LOCK_EX if write else fcntl.LOCK_SH)
        data = path.read_bytes()
        if write and not data and not _head(path).exists():
            _write_head(path, [])
        yield Book(path, _checked(path, data), handle)


def _open(path):
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise ConfigError(f"register {path}: removed, {_head(path).name} beside it says there was one") from None


def _checked(path, data):
    """The entries of a register, or ConfigError that names the first line that is not as it was written."""
    entries, previous = [], NOTHING
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        where = f"register {path}, line {number}"
        entry = parsed(line, where)
        if not isinstance(entry, dict) or not {"sha256", "previous"} <= set(entry):
            raise ConfigError(f"{where}: edited, it has no sha256 or previous")
        if entry["sha256"] != sha256({name: value for name, value in entry.items() if name != "sha256"}):
            raise ConfigError(f"{where}: edited, its sha256 is not that of its content")
        if (canonical(entry) + "\n").encode() != line:
            raise ConfigError(f"{where}: edited, its bytes are not as they were written")
        if entry["previous"] != previous:
            raise ConfigError(f"{where}: does not follow line {number - 1}; a line before it was edited, removed or put in")
        entries.append(entry)
        previous = entry["sha256"]
    _check_head(path, entries)
    return entries


def parsed(text, where):
    """JSON from bytes, with ConfigError for whatever is none."""

    def refuse(word):
        raise ValueError(f"{word} is no number")

    try:
        return json.loads(text.decode(), parse_constant=refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: edited, it is not JSON any more ({error})") from error


def _finite(text):
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is beyond float64")
    return value


def _head(path):
    return path.with_name(path.name + ".head")


def _head_line(entries):
    return f"{len(entries)} {entries[-1]['sha256'] if entries else NOTHING}\n"


def _write_head(path, entries):
    temporary = _head(path).with_name(f"{_head(path).name}.{os.getpid()}")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(_head_line(entries))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, _head(path))


def _check_head(path, entries):
    head = _head(path)
    try:
        text = head.read_bytes().decode()
        count = int(text.split(" ")[0])
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise ConfigError(
                f"register {path}: {head.name} is gone, which tells whether lines are missing; keep the two together"
            ) from None
        raise ConfigError(f"register {path}: {head.name} was edited") from error
    if count > len(entries):
        raise ConfigError(f"register {path}: {count - len(entries)} lines were removed from its end; {head.name} counts {count}")
    if count < 0 or text != _head_line(entries[:count]):
        raise ConfigError(f"register {path}: {head.name} does not fit it; one of the two was edited")
