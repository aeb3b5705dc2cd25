"""Strict records: a nested mapping becomes a frozen, hashable dataclass, or a clear error.

A record is a frozen dataclass whose fields are declared with `field`. `build` refuses unknown
keys, wrong types, wrong tuple shapes and values out of range; `parse` reads one override typed
by the record; `canonical` is what a run's identity hashes.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping

_MISSING = dataclasses.MISSING


class ConfigError(ValueError):
    """A user's mistake in a configuration: names the field, the value and the remedy."""


class DamageError(RuntimeError):
    """Something saved did not come back as it was: names the file and the remedy."""


def field(default=_MISSING, *, doc="", above=None, at_least=None, at_most=None, below=None, choices=None, off=_MISSING, recorded=False):
    """Declares one field of a record.

    Args:
      default: value when the key is absent; a nested record class stands for its defaults.
      doc: one line for people.
      above, at_least, at_most, below: bounds on a number, or on every entry of a tuple.
      choices: allowed values.
      off: value at which the field is left out of the identity (for fields added later).
      recorded: kept with the run, never part of its identity (does not change the result).
    """
    meta = dict(doc=doc, above=above, at_least=at_least, at_most=at_most, below=below, choices=choices, off=off, recorded=recorded)
    if isinstance(default, type) and dataclasses.is_dataclass(default):
        return dataclasses.field(default_factory=default, metadata=meta)
    return dataclasses.field(default=default, metadata=meta)


def build(cls, mapping, path="config"):
    """Builds record `cls` from nested `mapping`; raises `ConfigError` on the first mistake."""
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{path} = {mapping!r}: expected a group of fields ({_names(cls)}), not {_kind(mapping)}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in mapping:
        if key not in fields:
            raise ConfigError(f"{path}.{key}: no such field{suggest(key, fields)}; {path} has {_names(cls)}")
    if not mapping and fields:
        raise ConfigError(
            f"{path} = {{}}: an empty group would drop every setting; leave it out to keep the defaults, or set fields one by one ({_names(cls)})"
        )
    values = {name: check(hints[name], mapping[name], f"{path}.{name}", fields[name].metadata) for name in mapping}
    missing = [name for name, f in fields.items() if name not in values and f.default is _MISSING and f.default_factory is _MISSING]
    if missing:
        raise ConfigError(f"{path}.{missing[0]}: required, and not given")
    return cls(**values)


def check(hint, value, where, meta=types.MappingProxyType({})):
    """Returns `value` as the type `hint` asks, within the bounds of `meta`, or raises `ConfigError`."""
    value = _coerce(hint, value, where)
    if value is None:
        return None
    for entry in value if isinstance(value, tuple) else (value,):
        _bounds(entry, where, meta, value)
    return value


def parse(cls, dotted, text, path="config"):
    """Reads an override `text` for the leaf `dotted` of record `cls`, typed by the record's own hints."""
    head, _, rest = dotted.partition(".")
    hints = typing.get_type_hints(cls)
    if head not in hints:
        raise ConfigError(f"{path}.{head} = {text!r}: no such field{suggest(head, hints)}; {path} has {_names(cls)}")
    hint = hints[head]
    if dataclasses.is_dataclass(hint):
        if not rest:
            raise ConfigError(f"{path}.{head} = {text!r}: this is a group, set one of its fields instead ({_names(hint)})")
        return parse(hint, rest, text, f"{path}.{head}")
    if rest:
        raise ConfigError(f"{path}.{head}.{rest} = {text!r}: {path}.{head} is a single value, it has no field {rest!r}")
    meta = {f.name: f.metadata for f in dataclasses.fields(cls)}[head]
    return check(hint, _literal(hint, text), f"{path}.{head}", meta)


def to_dict(record):
    """The record as nested plain dicts, tuples kept."""
    if not dataclasses.is_dataclass(record):
        return record
    return {f.name: to_dict(getattr(record, f.name)) for f in dataclasses.fields(record)}


def canonical(record):
    """The result-changing part of `record` as nested dicts: recorded fields, and fields at their `off` value, left out."""
    if not dataclasses.is_dataclass(record):
        return list(record) if isinstance(record, tuple) else record
    out = {}
    for f in dataclasses.fields(record):
        value = getattr(record, f.name)
        off = f.metadata.get("off", _MISSING)
        if f.metadata.get("recorded") or (off is not _MISSING and value == off):
            continue
        out[f.name] = canonical(value)
    return out


def recorded(record):
    """The rest of `record`: its recorded fields as nested dicts."""
    out = {}
    for f in dataclasses.fields(record):
        value = getattr(record, f.name)
        if f.metadata.get("recorded"):
            out[f.name] = to_dict(value)
        elif dataclasses.is_dataclass(value):
            out[f.name] = recorded(value)
    return out


def is_recorded(record, dotted):
    """Whether the field `dotted` of `record` is a recorded one."""
    head, _, rest = dotted.partition(".")
    field_ = next(f for f in dataclasses.fields(record) if f.name == head)
    return bool(field_.metadata.get("recorded")) or (bool(rest) and is_recorded(getattr(record, head), rest))


def digest(value):
    """First 16 hex digits of sha256 over canonical JSON (sorted keys, floats by repr)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def suggest(word, known):
    """' (did you mean ...?)', or nothing."""
    near = difflib.get_close_matches(str(word), list(map(str, known)), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _coerce(hint, value, where):
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        inner = [a for a in args if a is not type(None)]
        return _coerce(inner[0], value, where)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, where)
    if origin is tuple:
        return _tuple(args, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint in (int, float) and isinstance(value, bool)):
        raise ConfigError(f"{where} = {value!r}: expected {hint.__name__}, not {_kind(value)}")
    if hint is float and not math.isfinite(value):
        raise ConfigError(f"{where} = {value!r}: expected a finite number")
    return value


def _tuple(args, value, where):
    if not isinstance(value, (tuple, list)):
        raise ConfigError(f"{where} = {value!r}: expected a tuple, not {_kind(value)}")
    if len(args) == 2 and args[1] is Ellipsis:
        args = (args[0],) * len(value)
    if len(value) != len(args):
        raise ConfigError(f"{where} = {tuple(value)!r}: expected {len(args)} entries, not {len(value)}")
    return tuple(_coerce(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True)))


def _bounds(value, where, meta, shown):
    if (choices := meta.get("choices")) is not None and value not in choices:
        raise ConfigError(f"{where} = {shown!r}: not one of {', '.join(map(repr, choices))}{suggest(value, choices)}")
    for name, word, ok in (
        ("above", "greater than", lambda b: value > b),
        ("at_least", "at least", lambda b: value >= b),
        ("at_most", "at most", lambda b: value <= b),
        ("below", "less than", lambda b: value < b),
    ):
        bound = meta.get(name)
        if bound is not None and not ok(bound):
            raise ConfigError(f"{where} = {shown!r}: must be {word} {bound}")


def _literal(hint, text):
    args = [a for a in typing.get_args(hint) if a is not type(None)]
    if text in ("None", "none") and len(args) < len(typing.get_args(hint)):
        return None
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return _literal(args[0], text)
    if hint is str:
        return text
    if typing.get_origin(hint) is tuple:
        parts = [p for p in text.strip().strip("()[]").split(",") if p.strip()]
        return tuple(_literal(args[0], p.strip().strip("'\"")) for p in parts)
    if hint is bool:
        return {"true": True, "false": False, "True": True, "False": False}.get(text, text)
    for kind in (int, float) if hint is int else (float,):  # 3.5 for an int is a number of the wrong kind, not text
        try:
            return kind(text.replace("_", ""))
        except ValueError:
            continue
    return text


def _names(cls):
    return ", ".join(f.name for f in dataclasses.fields(cls))


def _kind(value):
    return {"str": "text", "dict": "a group", "ConfigDict": "a group", "NoneType": "None"}.get(type(value).__name__, type(value).__name__)
