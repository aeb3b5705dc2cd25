"""What the commands `fit` and `predict` share: reading name=value pairs and numbers, printing intervals and tables."""

import math

from scaling_jax.laws import tables
from scaling_jax.records import ConfigError


def pairs(option, text):
    """ "params=N,loss=val" as a dict; ConfigError names the piece that is no pair."""
    out = {}
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = piece.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ConfigError(f"{option}={text}: {piece!r} is not name=value; pairs are joined by commas")
        if name.strip() in out:
            raise ConfigError(f"{option}={text}: {name.strip()} is given twice")
        out[name.strip()] = value.strip()
    return out


def number(option, text, name=""):
    """A finite number, 7B too where `name` is a count; ConfigError says which option was none."""
    try:
        return tables.number(text, tables.is_count(name))
    except ValueError as error:
        raise ConfigError(f"{option} = {text}: {error}") from error


def span(low, high):
    """ "[1.8, 1.9]"; an end that the data do not bound is said so."""
    ends = ["unbounded" if end is None or not math.isfinite(end) else f"{end:.4g}" for end in (low, high)]
    return f"[{ends[0]}, {ends[1]}]"


def table(columns, rows):
    from rich.table import Table

    out = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        out.add_column(column, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        out.add_row(*row)
    return out


def nothing_left(rest):
    if rest:
        raise ConfigError(f"{rest[0]}: no such option here")
