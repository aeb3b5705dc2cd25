"""Reading points: every format pandas writes, and errors that name the very line and column."""

import csv
import gzip
import io
import re
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_jax.laws import tables
from scaling_jax.laws.tables import read_points
from scaling_jax.records import ConfigError
from tests.test_floors import ROOT

NEEDED = ("params", "loss")


def write(folder, content, name="points.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path, *words, needed=NEEDED, **options):
    """Asserts that reading is a ConfigError with all `words`, and returns its text."""
    with pytest.raises(ConfigError) as caught:
        read_points(path, needed=needed, **options)
    for word in (str(path), *words):
        assert word in str(caught.value)
    return str(caught.value)


def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "name": ["a, b", 'say "so"', "two\nlines", "ünï"],
            "params": 10.0 ** rng.uniform(6, 9, 4),
            "loss": rng.uniform(2, 4, 4),
            "seed": [0, 1, 0, 1],
        }
    )


# --- round trips ---------------------------------------------------------------------------------------------

WRITERS = {
    "points.csv": lambda frame, path: frame.to_csv(path, index=False),
    "points.csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "points.CSV": lambda frame, path: frame.to_csv(path, index=False, encoding="utf-8-sig", lineterminator="\r\n"),
    "semicolon.csv": lambda frame, path: frame.to_csv(path, index=False, sep=";"),
    "indexed.csv": lambda frame, path: frame.to_csv(path),
    "points.tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "points.tsv.gz": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "points.jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True, double_precision=15),
    "points.jsonl.gz": lambda frame, path: frame.to_json(path, orient="records", lines=True, double_precision=15),
    "points.parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_pandas_writes_is_read_back(name, tmp_path):
    written = frame()
    WRITERS[name](written, tmp_path / name)
    read = read_points(tmp_path / name, needed=NEEDED, group="name")
    if "json" in name:  # pandas writes fifteen digits behind the point
        np.testing.assert_allclose(read[["params", "loss"]], written[["params", "loss"]], rtol=1e-14)
    else:
        np.testing.assert_array_equal(read[["params", "loss"]], written[["params", "loss"]])
    assert read["params"].dtype == read["loss"].dtype == np.float64
    assert read["name"].tolist() == written["name"].tolist()
    assert [str(seed) for seed in read["seed"]] == ["0", "1", "0", "1"]
    if "parquet" in name:
        assert (read.index.name, read.index.tolist()) == ("row", [1, 2, 3, 4])
    else:
        assert (read.index.name, read.index.tolist()) == ("line", [1, 2, 3, 4] if "json" in name else [2, 3, 4, 6])


@pytest.mark.parametrize("path", sorted((ROOT / "experiments" / "published").glob("*.csv")), ids=lambda path: path.stem)
def test_published_points_are_read_as_pandas_reads_them(path):
    theirs = pd.read_csv(path, comment="#")
    numeric = [name for name in theirs if theirs[name].dtype.kind in "if" and theirs[name].notna().all()]
    ours = read_points(path, needed=numeric)
    assert len(ours) == len(theirs) and numeric
    np.testing.assert_array_equal(ours[numeric], theirs[numeric])


def test_a_frame_is_checked_like_a_file():
    rows = tables.points(pd.DataFrame({"N": [1, 2], "loss": ["3.5", 4.0]}), {"params": "N"}, NEEDED)
    assert rows["params"].tolist() == [1.0, 2.0] and rows["loss"].tolist() == [3.5, 4.0]
    with pytest.raises(ConfigError, match=r"row 2, column 'loss': nan is not a finite number; a run that diverged"):
        tables.points(pd.DataFrame({"loss": [1.0, np.nan]}), needed="loss")
    with pytest.raises(ConfigError, match="row 1, column 'kind': the cell is empty"):
        tables.points(pd.DataFrame({"loss": [1.0], "kind": [None]}), needed="loss", group="kind")
    with pytest.raises(ConfigError, match="column 'loss': 2 columns of this name"):
        tables.points(pd.DataFrame([[1, 2]], columns=["loss", "loss"]), needed="loss")


# --- names of columns ----------------------------------------------------------------------------------------


def test_columns_are_mapped(tmp_path):
    path = write(tmp_path, "N,val_loss,loss,size\n1e6,3.5,9,small\n")
    rows = read_points(path, {"params": "N", "loss": "val_loss", "label": "size"}, NEEDED, group="label")
    assert rows.to_dict("list") == {"params": [1e6], "loss": [3.5], "label": ["small"]}


def test_a_missing_column_is_named_with_what_there_is(tmp_path):
    path = write(tmp_path, "Params,val_loss\n1e6,3.5\n")
    refused(path, "no column 'params' (did you mean 'Params'?)", "it has 'Params', 'val_loss'", "--columns=params=COLUMN")
    refused(path, "no column 'val-loss' (did you mean 'val_loss'?)", columns={"params": "Params", "loss": "val-loss"})
    refused(path, "no column 'kind'", needed=(), group="kind")


@pytest.mark.parametrize("header", ["params,loss,loss", "params, loss,loss ", ",,loss"])
def test_columns_of_one_name_are_refused(header, tmp_path):
    refused(write(tmp_path, f"# source: x\n{header}\n1,2,3\n"), "line 2, column", "2 columns of this name")


# --- numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell, value",
    [
        ("7B", 7e9),
        ("300M", 3e8),
        ("0.27T", 2.7e11),
        ("50k", 5e4),
        (".5b", 5e8),
        ("1_000", 1e3),
        ("1_5M", 1.5e7),
        (" 1e9 ", 1e9),
        ("+3", 3.0),
    ],
)
def test_counts(cell, value, tmp_path):
    path = write(tmp_path, f"params,tokens_seen,loss\n{cell},{cell},3\n")
    rows = read_points(path, needed=("params", "tokens_seen", "loss"))
    assert rows.iloc[0].tolist() == [value, value, 3.0]  # to the last bit: 0.27 * 1e12 is not 2.7e11


@pytest.mark.parametrize(
    "cell, words",
    [
        ("3.l4", "'3.l4' is not a number; did you mean 3.14?"),
        ("2.O", "did you mean 2.0?"),
        ("−1", "did you mean -1?"),
        ("", "the cell is empty; fill it in or delete the row"),
        ("  ", "the cell is empty"),
        ("NaN", "'NaN' is not a finite number; a run that diverged cannot be fitted"),
        ("-inf", "is not a finite number"),
        ("1e999", "is not a finite number"),
        ("diverged", "'diverged' is not a number; write one such as 3.14"),
        ('"3,14"', "write 3.14 for a decimal comma, 314 where the comma separates thousands"),
        ('"1,234,567"', "write 1234567 where"),
        ("7B", "K, M, B, T are read for counts only (params, "),
        ("1__0", "is not a number"),
        ("0x10", "is not a number"),
        ("True", "is not a number"),
    ],
)
def test_what_is_no_number(cell, words, tmp_path):
    refused(write(tmp_path, f"params,loss\n1e6,3\n1e7,{cell}\n1e8,{cell}\n"), ", line 3, column 'loss': ", words)


@pytest.mark.parametrize("cell", ["7G", "1.5.2B", "B", "1e3M", "nanB", "-7B"])
def test_what_is_no_count(cell, tmp_path):
    refused(write(tmp_path, f"params,loss\n{cell},3\n"), ", line 2, column 'params': ")


@pytest.mark.parametrize(
    "cell, words",
    [
        ("true", "True is not a number, but bool"),
        ("null", "is empty"),
        ("[1]", "but list"),
        ("NaN", "not a finite"),
        ("1" + "0" * 400, "not a finite"),
    ],
)
def test_what_is_no_number_in_json(cell, words, tmp_path):
    path = write(tmp_path, f'{{"params": 1, "loss": 2}}\n\n{{"params": 1, "loss": {cell}}}\n', "points.jsonl")
    refused(path, "line 3, column 'loss': ", words)


def test_parquet_tells_absent_from_nan(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path = tmp_path / "points.parquet"
    for values, words in (([1.0, None], "the cell is empty"), ([1.0, float("nan")], "nan is not a finite number")):
        parquet.write_table(pa.table({"loss": pa.array(values, pa.float64())}), path)
        refused(path, "row 2, column 'loss': ", words, needed="loss")


def test_the_first_bad_cell_of_the_file_is_named(tmp_path):
    refused(write(tmp_path, "params,loss\n1,2\n1,x\ny,2\n"), "line 3, column 'loss'")
    refused(write(tmp_path, "params,loss\n1,2\ny,2\n1,x\n"), "line 3, column 'params'")


# --- lines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, words",
    [
        ("a,params,loss\n\nx,1\n", ", line 3, column 'loss': the line ends after 2 of 3 fields"),
        ("a,params,loss\nx,1,3,14\n", ", line 2, behind column 'loss': 4 fields for 3 columns, the first too many is '14'; "),
        ("a,params,loss\n,\n", ", line 2, column 'loss': the line ends after 2"),
        ('a,params,loss\nx,1,2\n"y,1,2\nz,1,2\n', ", line 3: unexpected end of data; quotes must come in pairs"),
        ('a,params,loss\n"x"y,1,2\n', ", line 2: "),
        ("1e6,3.5\n1e7,3.1\n", ", line 1: numbers where the names of the columns are expected"),
        ("# params,loss\n1e6,3.5\n", ", line 2: numbers where the names"),
        ("", ": the file is empty"),
        ("# only\n# comments\n", ": the file is empty"),
        ("params,loss\n\n", ": has the columns params, loss and no row"),
        (b"\xff\xfep\0a\0", ", line 1: begins with the mark of UTF-16; save it as UTF-8"),
        (b"params,loss\n1,2\n1,2\xe9\n", r", line 3, column 'loss': b'2\xe9' is not UTF-8; save the file as UTF-8"),
        (b"# caf\xe9\nparams,loss\n1,2\n", ", line 1: behind '# caf' stands a byte that is not UTF-8"),
    ],
)
def test_damaged_text(content, words, tmp_path):
    refused(write(tmp_path, content), words)


@pytest.mark.parametrize(
    "content, words",
    [
        ('{"loss": 1}\n{"loss": \n', ", line 2: Expecting value; write one JSON object per line"),
        ('{"loss": 1}\n[1]\n', ", line 2: '[1]' is not a JSON object"),
        ('{"loss": 1, "loss": 2}\n', ", line 1: 'loss' stands twice in one object"),
        ('{"loss": 1}\n{"los": 1}\n', ", line 2, column 'loss': the cell is empty"),
        ("\n", ": the file is empty"),
    ],
)
def test_damaged_json_lines(content, words, tmp_path):
    refused(write(tmp_path, content, "points.jsonl"), words, needed="loss")


def test_files_that_are_no_table(tmp_path):
    write(tmp_path, "loss\n1\n")
    refused(tmp_path / "point.csv", "no such file (did you mean 'points.csv'?)")
    refused(tmp_path, "a folder, not a file")
    refused(write(tmp_path, "x", "points.xlsx"), "cannot tell the format by its ending; save it as one of .csv, .tsv")
    refused(write(tmp_path, "x", "points.parquet"), "cannot be read as Parquet")
    refused(write(tmp_path, gzip.compress(b"loss\n1\n")[:-9], "points.csv.gz"), "cannot be read: ")
    refused(write(tmp_path, "loss\n1\n", "points.csv.gz"), "cannot be read: ")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(write(tmp_path, "x", "points.parquet"), "needs pyarrow: pip install 'scaling_jax[parquet]'")


TEXTS = st.lists(st.sampled_from([*'abc ,;"#\n\tü', "\r\n"]), max_size=5).map("".join)
BAD = [b"3.l4", b"", b" ", b"NaN", b"diverged", b'"3,14"', b"inf", b"1\xe9", b'"1\n2"']
MARK = "@here@"


@settings(max_examples=150)
@given(st.data())
def test_one_bad_cell_is_named_by_its_line_and_column(tmp_path_factory, data):
    """The oracle is the text itself: the line on which the bad cell begins, as an editor counts lines."""
    rows = data.draw(st.integers(1, 6))
    kinds = data.draw(st.permutations(["text", "params", "loss", "other text"]))
    number_ = st.floats(1e-3, 1e12, allow_subnormal=False).map(repr)
    table = [[data.draw(TEXTS if "text" in kind else number_) for kind in kinds] for _ in range(rows)]
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.sampled_from(["params", "loss"]))
    table[row][kinds.index(column)] = MARK
    separator, end = data.draw(st.sampled_from(",;\t")), data.draw(st.sampled_from(["\n", "\r\n"]))
    out = io.StringIO(newline="")
    out.write("".join(f"# comment{end}" for _ in range(data.draw(st.integers(0, 2)))))
    writer = csv.writer(out, delimiter=separator, lineterminator=end)
    writer.writerow(kinds)
    for cells in table:
        out.write(end * data.draw(st.integers(0, 1)))
        writer.writerow(cells)
    content = out.getvalue()
    line = 1 + len(re.findall("\r\n|\r|\n", content[: content.index(MARK)]))
    path = tmp_path_factory.getbasetemp() / f"one.{'tsv' if separator == chr(9) else 'csv'}"

    path.write_bytes(content.replace(MARK, "1_000").encode())
    kept = read_points(path, needed=NEEDED)
    assert len(kept) == rows and kept[column].iloc[row] == 1000
    assert kept["text"].tolist() == [cells[kinds.index("text")] for cells in table]
    others = [float(cells[kinds.index("loss")]) for cells in table if cells[kinds.index("loss")] != MARK]
    assert [x for i, x in enumerate(kept["loss"]) if (i, column) != (row, "loss")] == others

    path.write_bytes(content.encode().replace(MARK.encode(), data.draw(st.sampled_from(BAD))))
    refused(path, f", line {line}, column '{column}': ")
