"""TensorBoard's event files, read by TensorBoard's own pure Python loader: scalars and hyper-parameters of one run.

The loader ends without a word at the first record that it cannot read. How far it came is therefore held against the size of the file.
"""

import struct
from pathlib import Path

from scaling_jax.records import ConfigError

FRAME = 16  # bytes of a record besides its content: its length, and a checksum each of length and content


def find(path):
    """{run: [its event files, oldest first]} of an event file or a folder; runs are named by their folders, as TensorBoard does."""
    path = Path(path)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*tfevents*") if file.is_file())
    out: dict = {}
    for file in files:
        folder = file.parent.relative_to(path).as_posix() if path.is_dir() else "."
        out.setdefault(file.resolve().parent.name if folder == "." else folder, []).append(file)
    return out


def read(files, partial=False):
    """The scalars of one run's event files, in the order in which they were written.

    Where a file says that the run was restarted at step s, what it had logged at steps >= s is dropped, as TensorBoard does.
    Args:
      files: of one run, oldest first; a record that its writer never finished at the end of a file is left out.
      partial: where a file is damaged, keep what stands before the damage.
    Returns:
      ({tag: ([step], [value])}, {hyper-parameter: value}, [note]).
    Raises:
      ConfigError: TensorBoard is not installed, or a file is damaged; names it and where.
    """
    points: dict = {}
    config: dict = {}
    notes: list = []
    for file in files:
        for event in _events(file, partial, notes):
            if event.session_log.status == event.session_log.START:
                notes += _restart(points, event.step)
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "hparams":
                    config |= _hyperparameters(value.metadata.plugin_data.content)
                elif (number := _scalar(value)) is not None:
                    steps, values = points.setdefault(value.tag, ([], []))
                    steps.append(event.step)
                    values.append(number)
    return points, config, notes


def _events(file, partial, notes):
    """The Event messages of a file."""
    try:
        from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
        from tensorboard.compat.proto.event_pb2 import Event
    except ImportError as error:
        raise ConfigError(f"{file}: reading event files needs TensorBoard: pip install 'scaling_jax[tensorboard]'") from error
    from google.protobuf.message import DecodeError

    size, read, step = file.stat().st_size, 0, 0  # the size first: the run may still be writing
    try:
        for record in RawEventFileLoader(str(file)).Load():
            event = Event.FromString(record)
            read, step = read + len(record) + FRAME, event.step
            yield event
    except DecodeError:
        pass  # a sound record that is no Event
    if read >= size:
        return
    if _cut(file, read, size):
        notes.append(f"{file}: its last record was not written to the end (after step {step}), as when a job is killed; it is left out")
        return
    where = f"{file}: damaged at byte {read} of {size}, after step {step}" if read else f"{file}: not an event file"
    if not partial:
        raise ConfigError(f"{where}; copy it again from its origin, or read what stands before the damage (partial=True)")
    notes.append(f"{where}; what follows is left out")


def _cut(file, read, size):
    """Whether the file ends within the record that begins at byte `read`, whose beginning is sound."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    with open(file, "rb") as content:
        content.seek(read)
        head = content.read(12)
    if len(head) < 12:
        return True
    length, checksum = struct.unpack("<QI", head)
    return masked_crc32c(head[:8]) == checksum and read + FRAME + length > size


def _restart(points, step):
    """Drops what was logged at `step` and later, and says so."""
    dropped = 0
    for steps, values in points.values():
        kept = [i for i, logged in enumerate(steps) if logged < step]
        dropped += len(steps) - len(kept)
        steps[:], values[:] = [steps[i] for i in kept], [values[i] for i in kept]
    return [f"restarted at step {step}; values logged before at that step or later are dropped: {dropped}"] if dropped else []


def _scalar(value):
    """The number in a Summary.Value, or None where it holds something else."""
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.util.tensor_util import make_ndarray

    if value.HasField("simple_value"):
        return value.simple_value
    if value.HasField("tensor") and not value.tensor.tensor_shape.dim and value.tensor.dtype != DT_STRING:
        return float(make_ndarray(value.tensor))
    return None


def _hyperparameters(content):
    """name -> value of the message with which TensorBoard's hparams plugin begins a run; empty for its other messages."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: getattr(value, kind) for name, value in found.items() if (kind := value.WhichOneof("kind")) not in (None, "null_value")}
