"""Rows of a study, as statistics read them: immutable views that remember which runs each row depends on."""

import math

import numpy as np

from scaling_jax import records
from scaling_jax.laws.form import NotTestable


class Data:
    """Rows of a study, immutable: every method gives a new view or a number.

    Columns are held as NumPy arrays shared by all views, a view is an index of rows: a null test calls a statistic
    thousands of times. `data["loss"]` is a column of the view as an array.

    Args:
      frame: pandas frame; its column `runs` holds the tuple of run ids each row depends on.
      cells: run id -> label of its cell; runs of one cell differ in nothing but the seed.
    """

    __slots__ = ("_columns", "_rows", "_rows_of", "_cells", "_memo")

    def __init__(self, frame, cells):
        if "runs" not in frame.columns:
            raise ValueError("frame has no column 'runs': each row needs the tuple of run ids that it depends on")
        self._columns = {name: frame[name].to_numpy() for name in frame.columns}
        self._rows = np.arange(len(frame))
        self._cells = cells
        self._memo = {}
        rows_of = {}
        for row, runs in enumerate(self._columns["runs"]):
            if not isinstance(runs, tuple) or not runs:
                raise ValueError(f"runs = {runs!r} in row {row}: expected a tuple of at least one run id")
            for run in runs:
                if run not in cells:
                    raise ValueError(f"run {run!r} in row {row} has no cell: add it to `cells`")
                rows_of.setdefault(run, []).append(row)
        self._rows_of = {run: np.array(rows) for run, rows in rows_of.items()}

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, column):
        return self._column(column)[self._rows]

    @property
    def frame(self):
        """The rows of this view as a new pandas frame."""
        import pandas as pd

        return pd.DataFrame({name: values[self._rows] for name, values in self._columns.items()})

    @property
    def strata(self):
        """Cell -> ids of its runs that any row of this view depends on."""
        out = {}
        for run in dict.fromkeys(run for runs in self["runs"] for run in runs):
            out.setdefault(self._cells[run], []).append(run)
        return {cell: tuple(runs) for cell, runs in out.items()}

    def where(self, **equals):
        """Rows whose columns equal the values given; a list, tuple, set, range or array means any of its values."""
        rows = self._rows
        for name, wanted in equals.items():
            values = self._column(name)[rows]
            if isinstance(wanted, (list, tuple, set, frozenset, range, np.ndarray)):
                mask = np.zeros(len(rows), bool)
                for one in wanted:
                    mask |= values == one
            else:
                mask = values == wanted
            rows = rows[mask]
        return self._view(rows=rows)

    def drop(self, runs):
        """Rows that depend on none of `runs`."""
        if not runs:
            return self
        keep = np.ones(len(self._columns["runs"]), bool)
        for run in runs:
            keep[self._rows_of[run]] = False
        return self._view(rows=self._rows[keep[self._rows]])

    def replace(self, column, values):
        """The same rows with other values in one column."""
        values, old = np.asarray(values), self._column(column)
        full = old.astype(np.result_type(old, values))
        full[self._rows] = values
        return self._view(columns={**self._columns, column: full})

    def mean(self, column="loss"):
        """Mean of a column; raises NotTestable when no row is left, or a run diverged."""
        values = self[column]
        if not values.size:
            raise NotTestable(f"no row left to average {column} over")
        mean = float(values.sum() / values.size)
        if math.isnan(mean):
            raise NotTestable(f"{column} is nan in {int(np.isnan(values).sum())} of {values.size} rows: a run diverged")
        return mean

    def by(self, column, value="loss"):
        """Mean of `value` at each value of `column`: a pandas Series, sorted by `column`; NotTestable as in `mean`."""
        import pandas as pd

        if not len(self):
            raise NotTestable(f"no row left to average {value} over, by {column}")
        keys, inverse, counts = np.unique(self[column], return_inverse=True, return_counts=True)
        means = np.bincount(inverse, self[value]) / counts
        if np.isnan(means).any():
            raise NotTestable(f"{value} is nan at {column} = {keys[np.isnan(means)][0]}: a run diverged")
        return pd.Series(means, index=keys, name=value)

    def fit(self, form, **where):
        """The law `form` fitted to the rows of `where(**where)`; see scaling_jax.laws.fit."""
        from scaling_jax.laws import fitting

        return fitting.fit(form, self.where(**where).frame)

    def _column(self, name):
        if name not in self._columns:
            raise KeyError(f"rows have no column {name!r}{records.suggest(name, self._columns)}; they have {', '.join(self._columns)}")
        return self._columns[name]

    def _view(self, rows=None, columns=None):
        view = object.__new__(Data)
        view._columns = self._columns if columns is None else columns
        view._rows = self._rows if rows is None else rows
        view._rows_of, view._cells, view._memo = self._rows_of, self._cells, {}
        return view
