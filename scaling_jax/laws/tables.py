"""A researcher's own numbers as rows for law fits: CSV, Parquet or JSON lines, where a bad cell is named by line and column.

Every file becomes a `Table`, whose cells are as the file has them; numbers are made of the columns that a law needs and of no
other. There is one pass and no second opinion: what it does not understand is an error, no row is left out.
"""

import csv
import gzip
import io
import itertools
import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np

from scaling_jax.records import ConfigError, suggest

SEPARATED = (".csv", ".tsv")
KINDS = (*SEPARATED, ".jsonl", ".ndjson", ".parquet")
COUNTS = ("params", "parameters", "tokens", "flops", "examples", "samples", "members", "steps", "size")
SUFFIXES = {"k": "e3", "m": "e6", "b": "e9", "t": "e12"}  # text, so that 0.27T is 2.7e11 to the last bit: 0.27 * 1e12 is not
LINE_END = re.compile(r"\r\n|\r|\n")
UNDECODED = re.compile("[\udc80-\udcff]")  # what bytes that are not UTF-8 become
SUFFIXED = re.compile(r"((?:\d[\d_]*)?\.?\d+)([kmbt])", re.IGNORECASE)
LOOKALIKES = str.maketrans({"l": "1", "I": "1", "O": "0", "o": "0", "\N{MINUS SIGN}": "-"})


@dataclass(frozen=True)
class Table:
    """A table as its file has it.

    columns: name -> cells, in the file's order; an empty cell is "" or None. lines: where each row begins, counted from 1;
    unit: "line", as an editor counts them, or "row" where a file has no lines. folded: whether the line ends in a cell are
    lines of the file.
    """

    path: str
    columns: Mapping[str, list]
    lines: Sequence[int]
    unit: str = "line"
    folded: bool = False

    def wrong(self, row, name, reason):
        """The error about one cell, on the very line where the cell begins."""
        before = itertools.takewhile(lambda other: other != name, self.columns) if self.folded else ()
        line = self.lines[row] + sum(len(LINE_END.findall(self.columns[other][row])) for other in before)
        return ConfigError(f"{self.path}, {self.unit} {line}, column {name!r}: {reason}")


def read_points(path, columns=None, needed=(), group=None):
    """Reads a file of points: one row per point, the needed columns as finite float64, all others as they are, to group by.

    Args:
      path: .csv or .tsv (also .gz), comments before the header begin with #; .jsonl (also .gz); .parquet.
      columns, needed, group: as in `points`.
    Returns:
      pandas frame indexed by the file's line of each row (Parquet: its row), counted from 1.
    Raises:
      ConfigError: names file, line, column, the text found, and the remedy.
    """
    return points(read_table(path), columns, needed, group)


def points(table, columns=None, needed=(), group=None):
    """The rows of a `Table`, or of a pandas frame, that a law can be fitted to; see `read_points`.

    Args:
      columns: law variable -> column of the file, such as {"params": "N"}, where the names differ; a column of the file that
        has the variable's name already is then left out.
      needed: variables that must be finite numbers. Counts, which are variables with one of the words of COUNTS in their
        name (params, tokens_seen), may be written 300M: K, M, B, T stand for 1e3, 1e6, 1e9, 1e12. 1_000 and 1e9 are numbers.
      group: column, or list of columns, that must be there and have no empty cell.
    """
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        table = from_frame(table)
    needed, group = _names(needed), _names(group)
    source = {variable: find(table, variable, name) for variable, name in (columns or {}).items()}
    source |= {name: find(table, name, name) for name in needed if name not in source}
    source |= {name: find(table, name, name, mapped=False) for name in group if name not in source}
    out: dict = {}
    worst = None  # the first bad cell of the file, whichever column it is in
    for variable, name in source.items():
        cells = table.columns[name]
        if variable in needed:
            out[variable], bad = _numbers(cells, is_count(variable))
        else:
            out[variable], bad = cells, _first(label, cells) if variable in group else None
        if bad and (worst is None or bad[0] < worst[0]):
            worst = (*bad, name)
    if worst:
        row, reason, name = worst
        raise table.wrong(row, name, reason)
    out |= {name: cells for name, cells in table.columns.items() if name not in {*source, *source.values()}}
    return pd.DataFrame(out, index=pd.Index(table.lines, name=table.unit))


def from_frame(frame, path="the table"):
    """A pandas frame as a `Table`; `path` is what errors call it."""
    names = [str(name) for name in frame.columns]
    _refuse_twice(path, names)
    cells = [frame.iloc[:, i].tolist() for i in range(len(names))]
    return Table(path, dict(zip(names, cells, strict=True)), range(1, len(frame) + 1), "row")


def read_table(path):
    """The `Table` of a file, whose ending says its kind; raises ConfigError where it is damaged, empty or not in its format."""
    path = Path(path)
    if not path.is_file():
        near = [p.name for p in path.parent.iterdir() if p.name.removesuffix(".gz").endswith(KINDS)] if path.parent.is_dir() else []
        raise ConfigError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}{suggest(path.name, near)}")
    name = path.name.removesuffix(".gz").lower()
    if name.endswith(".parquet"):
        table = _parquet(path)
    elif name.endswith(KINDS):
        content, broken = _decode(path)
        table = (_separated if name.endswith(SEPARATED) else _json_lines)(str(path), content)
        if broken:
            _refuse_broken(table, broken)
    else:
        raise ConfigError(f"{path}: cannot tell the format by its ending; save it as one of {', '.join(KINDS)} (or .csv.gz)")
    if not table.lines:
        raise ConfigError(
            f"{path}: has the columns {', '.join(table.columns)} and no row" if table.columns else f"{path}: the file is empty"
        )
    return table


def number(cell, count=False):
    """The finite float64 in a cell: a number, or its text; `count` reads 7B as 7e9. Raises ValueError with reason and remedy."""
    if isinstance(cell, str):
        plain = cell.strip()
        short = SUFFIXED.fullmatch(plain) if count else None
        try:
            value = float(plain if short is None else short[1] + SUFFIXES[short[2].lower()])
        except ValueError:
            raise ValueError(_remedy(plain, cell, count)) from None
    elif cell is None or isinstance(cell, bool) or not isinstance(cell, (int, float, Decimal)):
        raise ValueError(_remedy("", cell, count) if cell is None else f"{cell!r} is not a number, but {type(cell).__name__}")
    else:
        try:
            value = float(cell)
        except OverflowError:
            value = math.inf
    if not math.isfinite(value):
        raise ValueError(f"{cell!r} is not a finite number; a run that diverged cannot be fitted: correct it or delete the row")
    return value


def numbers(table, name, count=False):
    """A column of a `Table` as finite float64 [n]; raises ConfigError about its first cell that is no number."""
    values, bad = _numbers(table.columns[name], count)
    if bad:
        raise table.wrong(bad[0], name, bad[1])
    return values


def labels(table, name):
    """A column of a `Table` as text; raises ConfigError about its first empty cell."""
    if bad := _first(label, table.columns[name]):
        raise table.wrong(bad[0], name, bad[1])
    return [str(cell) for cell in table.columns[name]]


def label(cell):
    """The text of a cell that says what its row belongs to; raises ValueError where it is empty."""
    if empty(cell) or (isinstance(cell, float) and math.isnan(cell)):
        raise ValueError("the cell is empty; say here what the row belongs to")
    return str(cell)


def empty(cell):
    """Whether a cell holds nothing."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def is_count(variable):
    """Whether a law variable is a count by its name, so that 7B is a number."""
    return any(word in COUNTS for word in re.split(r"[^a-z]+", variable.lower()))


def _numbers(cells, count):
    """(float64 [n], None), or (None, (row, reason)) of the first cell that is no number."""
    if set(map(type, cells)) <= {str, float, int}:
        try:  # the usual case, a tenth of the time
            values = np.array([float(cell) for cell in cells], np.float64)
            if np.isfinite(values).all():
                return values, None
        except (ValueError, OverflowError):
            pass
    bad = _first(lambda cell: number(cell, count), cells)
    return (None, bad) if bad else (np.array([number(cell, count) for cell in cells], np.float64), None)


def _first(check, cells):
    """(row, reason) of the first cell that `check` raises ValueError for, or None."""
    for row, cell in enumerate(cells):
        try:
            check(cell)
        except ValueError as error:
            return row, str(error)
    return None


def _names(given):
    return (given,) if isinstance(given, str) else tuple(given or ())


def find(table, variable, name, mapped=True):
    """`name`, a column of the table; raises ConfigError with the columns there are, and how to say which is `variable` (mapped: by --columns)."""
    if name in table.columns:
        return name
    raise ConfigError(
        f"{table.path}: no column {name!r}{suggest(name, table.columns)}; it has {', '.join(map(repr, table.columns))}. "
        + (f"Say which of them is {variable}: --columns={variable}=COLUMN" if mapped else f"Rename one of them to {name}, or name another")
    )


def _refuse_twice(where, names):
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}, column {name!r}: {names.count(name)} columns of this name; give each its own")


def _remedy(plain, cell, count):
    """Why a cell's text is no number, and what to write instead."""
    if not plain:
        return "the cell is empty; fill it in or delete the row"
    if re.fullmatch(r"[+-]?\d+(,\d+)+(\.\d*)?([eE][+-]?\d+)?", plain):
        point = f"{plain.replace(',', '.')} for a decimal comma, " if plain.count(",") == 1 and "." not in plain else ""
        return f"{cell!r} is not a number; write {point}{plain.replace(',', '')} where the comma separates thousands"
    if short := SUFFIXED.fullmatch(plain):
        full = short[1] + SUFFIXES[short[2].lower()]
        return f"{cell!r} is not a number; K, M, B, T are read for counts only ({', '.join(COUNTS)}): write {full}"
    try:
        float(meant := plain.translate(LOOKALIKES))
        return f"{cell!r} is not a number; did you mean {meant}?"
    except ValueError:
        return f"{cell!r} is not a number; write one such as 3.14 or 1e9{' or 7B' if count else ''}"


def _decode(path):
    """(the file's text, None or what is said of its first line that is not UTF-8)."""
    try:
        data = path.read_bytes() if path.suffix != ".gz" else gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; if it is a copy, copy it again") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ConfigError(f"{path}, line 1: begins with the mark of UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig"), None  # a spreadsheet's UTF-8 begins with a mark too, which means nothing
    except UnicodeDecodeError:
        content = data.decode("utf-8-sig", "surrogateescape")
        before = LINE_END.split(content[: UNDECODED.search(content).start()])
        return content, f"line {len(before)}: behind {before[-1]!r} stands a byte that is not UTF-8; save the file as UTF-8"


def _refuse_broken(table, reason):
    for row, (name, cells) in itertools.product(range(len(table.lines)), table.columns.items()):
        if UNDECODED.search(str(cells[row])):
            raise table.wrong(row, name, f"{str(cells[row]).encode('utf-8', 'surrogateescape')!r} is not UTF-8; save the file as UTF-8")
    raise ConfigError(f"{table.path}, {reason}")


def _separated(path, content):
    """The table of a CSV or TSV file, by the csv module in its strict mode."""
    rest = io.StringIO(content, newline="")  # lines end as in an editor: \n, \r\n or \r
    skipped, first = 0, ""
    for first in rest:
        if first.strip() and not first.startswith("#"):
            break
        skipped, first = skipped + 1, ""
    tabs = path.removesuffix(".gz").lower().endswith(".tsv")
    separator = "\t" if tabs else next((s for s in ",;\t" if s in first), ",")
    reader = csv.reader(itertools.chain([first] if first else [], rest), delimiter=separator, strict=True)
    header, cells, lines, start = None, [], [], skipped + 1
    try:
        for fields in reader:
            if header is None:
                header = _header(path, start, [name.strip() for name in fields])
            elif len(fields) == len(header):
                cells.extend(fields)  # one flat list: a list for each of a million rows keeps the garbage collector busy
                lines.append(start)
            elif len(fields) > 1 or "".join(fields).strip() or len(header) == 1:  # else the line is blank
                raise _field_count(path, start, header, fields)
            start = skipped + reader.line_num + 1
    except csv.Error as error:
        raise ConfigError(f"{path}, line {start}: {error}; quotes must come in pairs, and double inside of quoted text") from error
    return Table(path, {name: cells[i :: len(header)] for i, name in enumerate(header or [])}, lines, folded=True)


def _header(path, line, names):
    where = f"{path}, line {line}"
    _refuse_twice(where, names)
    if all(_first(number, [name]) is None for name in names):
        raise ConfigError(f"{where}: numbers where the names of the columns are expected; name them in a line that does not begin with #")
    return names


def _field_count(path, line, header, fields):
    found, expected = len(fields), len(header)
    if found < expected:
        return ConfigError(f"{path}, line {line}, column {header[found]!r}: the line ends after {found} of {expected} fields; complete it")
    return ConfigError(
        f"{path}, line {line}, behind column {header[-1]!r}: {found} fields for {expected} columns, the first too many is {fields[expected]!r}; "
        "take it out, put text that has the separator in it in quotes, and write decimals with a point"
    )


def _json_lines(path, content):
    """The table of a file of one JSON object per line; a key that a row lacks is an empty cell."""
    columns: dict = {}
    lines: list = []
    for line, one in enumerate(io.StringIO(content, newline=""), 1):
        if not one.strip() or (not lines and one.startswith("#")):
            continue
        try:
            row = json.loads(one)
            if isinstance(row, dict) and one.count(":") > len(row):  # a colon inside of text, or a key given twice
                row = json.loads(one, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}, line {line}: {getattr(error, 'msg', error)}; write one JSON object per line") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{path}, line {line}: {one.strip()[:40]!r} is not a JSON object; write one per line")
        if not row.keys() <= columns.keys():
            columns |= {name: [None] * len(lines) for name in row if name not in columns}
        for name, cells in columns.items():
            cells.append(row.get(name))
        lines.append(line)
    return Table(path, columns, lines)


def _unique(pairs):
    row = dict(pairs)
    for name in row:
        if sum(other == name for other, _ in pairs) > 1:
            raise ValueError(f"{name!r} stands twice in one object")
    return row


def _parquet(path):
    """The table of a Parquet file, read by pyarrow itself: to pandas an absent number and nan are the same."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ConfigError(f"{path}: reading Parquet needs pyarrow: pip install 'scaling_jax[parquet]'") from error
    try:
        content = parquet.read_table(path, partitioning=None)
    except (OSError, pyarrow.ArrowException) as error:
        raise ConfigError(f"{path}: cannot be read as Parquet: {error}") from error
    names = content.column_names
    _refuse_twice(path, names)
    return Table(str(path), {name: content.column(name).to_pylist() for name in names}, range(1, content.num_rows + 1), "row")
