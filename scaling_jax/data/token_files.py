"""A user's file of tokens, raw .bin or .npy: read whole and as it was written, or refused with position, value and remedy."""

import stat
from pathlib import Path

import numpy as np

from scaling_jax.records import ConfigError

_CHUNK = 2**22  # tokens looked at together, so that checking a mapped file of any size takes little memory
_UNFILLED = 4096  # zeros in a row at its end that tell a preallocated file from one that ends in a few separators


def read_tokens(data):
    """The checked tokens of `data.path`, [tokens] in the file's own type; the file is mapped, not read into memory.

    Raises:
      ConfigError naming the file and, where there is one, position, byte and value of the damage.
    """
    before, path = stamp(data), Path(data.path)
    where = f"config.data.path = {data.path!r}"
    if before[0] == 0:
        raise ConfigError(f"{where}: the file is empty; write tokens into it")
    try:
        array, offset = (_npy if path.suffix == ".npy" else _raw)(path, data, where, before[0])
        if array.size == 0:
            raise ConfigError(f"{where}: the array is empty; write tokens into it")
        if path.suffix == ".bin":
            _refuse_narrow(array, data)
        _refuse_out_of_vocabulary(array, data, offset)
        _refuse_unfilled(array, where, offset)
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read ({error.strerror or error}); make it readable for you") from None
    if stamp(data) != before:
        raise ConfigError(f"{where}: the file changed while it was read; start again once it is written")
    return np.asarray(array)


def stamp(data):
    """(size, time of change, inode) of the file, which tell that it may have changed; raises ConfigError where it is no file."""
    where = f"config.data.path = {data.path!r}"
    if data.path is None:
        raise ConfigError(f"{where}: source 'file' needs a file; set data.path to your .bin or .npy (--config.data.path=FILE)")
    path = Path(data.path)
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise ConfigError(f"{where}: no such file; give the path from {Path.cwd()}, or an absolute one") from None
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read ({error.strerror}); make it readable for you") from None
    if stat.S_ISDIR(found.st_mode):
        inside = sorted(p.name for p in path.iterdir() if p.suffix in (".bin", ".npy"))
        hint = f", such as {inside[0]!r} in it" if inside else "; there is none in it"
        raise ConfigError(f"{where}: a directory; give one .bin or .npy file{hint}")
    if path.suffix not in (".bin", ".npy"):
        raise ConfigError(f"{where}: neither .bin (raw data.dtype) nor .npy; save your tokens as one of them")
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{where}: not a regular file; write the tokens into one, they are read more than once")
    return found.st_size, found.st_mtime_ns, found.st_ino


def _raw(path, data, where, size):
    dtype = np.dtype(data.dtype).newbyteorder("<")
    if size % dtype.itemsize:
        raise ConfigError(
            f"config.data.dtype = {data.dtype!r}: the {size} bytes of {data.path} are no multiple of its {dtype.itemsize}; set the type they were written with, or write the file again: its last token is cut off at byte {size // dtype.itemsize * dtype.itemsize}"
        )
    return np.memmap(path, dtype, mode="r"), 0


def _npy(path, data, where, size):
    remedy = "write it with numpy.save"
    with open(path, "rb") as file:
        if file.read(4) == b"PK\3\4":
            raise ConfigError(f"{where}: an .npz of several arrays under the name .npy; save one array with numpy.save")
        file.seek(0)
        try:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, _, dtype = read(file)
        except Exception as error:  # NumPy's parser raises almost anything on damaged bytes
            raise ConfigError(
                f"{where}: not a readable .npy file (its header, before byte {file.tell()}: {str(error)[:200]}); {remedy}"
            ) from None
        offset = file.tell()
    if len(shape) != 1:
        raise ConfigError(f"{where}: an array of shape {shape}; save one axis of tokens, such as array.ravel()")
    if dtype.kind not in "iu":
        raise ConfigError(f"{where}: an array of {dtype}; save integers, such as array.astype('uint16')")
    if shape[0] == 0 and size == offset:
        return np.zeros(0, dtype), offset
    promised = offset + shape[0] * dtype.itemsize
    if size < promised:
        raise ConfigError(
            f"{where}: its header promises {shape[0]} tokens of {dtype}, {promised} bytes, and the file ends at byte {size}, within token {max(0, size - offset) // dtype.itemsize}: it is torn; {remedy} again"
        )
    if size > promised:
        raise ConfigError(
            f"{where}: its header promises {shape[0]} tokens of {dtype}, {promised} bytes, and the file has {size - promised} more, from byte {promised} on, which would not be read; {remedy} again"
        )
    return np.memmap(path, dtype, mode="r", offset=offset, shape=shape), offset


def _refuse_narrow(array, data):
    """Refuses a file written in a wider type than it is read in: then every other number, at least, is the upper half of one, 0."""
    if len(array) < 32 or array.itemsize == 8 or _any(array, 1, 2):
        return
    wide = [n for n in (2, 4, 8) if n * array.itemsize <= 8 and not any(_any(array, start, n) for start in range(1, n))]
    if _any(array, 0, 2):  # else all are 0, of whatever type
        bits = 8 * array.itemsize * wide[-1]
        raise ConfigError(
            f"config.data.dtype = {data.dtype!r}: in {data.path} all of positions 1, 3, 5 ... are 0, as in a file written in a wider type; set data.dtype={'int64' if bits >= 64 else f'uint{bits}'}, or save as .npy, which tells its type"
        )


def _any(array, start, step):
    """Whether any of array[start::step] is not 0; a whole file of text is settled by its first chunk."""
    return any(array[i + start : i + _CHUNK : step].any() for i in range(0, len(array), _CHUNK))


def _refuse_out_of_vocabulary(array, data, offset):
    first, count, largest, smallest = None, 0, 0, 0
    for start in range(0, len(array), _CHUNK):
        chunk = array[start : start + _CHUNK]
        low, high = int(chunk.min()), int(chunk.max())
        largest, smallest = max(largest, high), min(smallest, low)
        if low < 0 or high >= data.vocab:
            bad = (chunk < 0) | (chunk >= data.vocab)
            count += int(bad.sum())
            first = start + int(bad.argmax()) if first is None else first
    if first is None:
        return
    if smallest < 0:
        remedy = "write the file again without negative numbers; padding and masks are no tokens"
    else:
        kind = "" if Path(data.path).suffix == ".npy" else f", data.dtype if it was not written as {data.dtype}"
        remedy = f"set data.vocab above the largest token ({largest}) if the tokenizer has so many{kind}; else the file is damaged there, write it again"
    raise ConfigError(
        f"config.data.vocab = {data.vocab}: token {int(array[first])} at position {first} of {data.path} is out of it (at byte {offset + first * array.itemsize}; in all {count} of {len(array)} are); {remedy}"
    )


def _refuse_unfilled(array, where, offset):
    """Refuses a file preallocated for more tokens than were written: it ends in zeros."""
    end = len(array)
    while end:
        chunk = array[max(0, end - _CHUNK) : end]
        filled = np.flatnonzero(chunk)
        if filled.size:
            end -= len(chunk) - 1 - int(filled[-1])
            break
        end -= len(chunk)
    if len(array) - end >= _UNFILLED or end == 0:
        raise ConfigError(
            f"{where}: from position {end} (byte {offset + end * array.itemsize}) to its end, at position {len(array)}, all tokens are 0, as in a file that was made at full size and never filled; write it to the end, or cut it there"
        )
