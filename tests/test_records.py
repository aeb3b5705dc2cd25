"""Strict records: every mistake is refused by field, value and remedy; overrides and digests are pinned."""

import dataclasses
import hashlib
import json
import math
import re
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling_jax import records
from scaling_jax.records import ConfigError, field


@dataclass(frozen=True)
class Inner:
    rate: float = field(0.5, above=0.0, below=2.0)
    pair: tuple[int, float] = field((1, 2.0))


@dataclass(frozen=True)
class Outer:
    width: int = field(8, at_least=1, at_most=64)
    limit: int | None = field(None, at_least=2)
    flag: bool = field(False)
    name: str = field("plain", choices=("plain", "fancy"))
    sizes: tuple[int, ...] = field((1, 2), at_least=1)
    words: tuple[str, ...] = field(("a",), choices=("a", "b"))
    title: str | None = field(None)
    inner: Inner = field(Inner)


@dataclass(frozen=True)
class Needy:
    must: int = field()
    may: int = field(1)


@dataclass(frozen=True)
class Grown:
    """`later` came after runs had been hashed; `note` never mattered."""

    width: int = field(8)
    later: float = field(0.0, off=0.0)
    switch: str | None = field(None, off=None)
    note: int = field(3, recorded=True)
    inner: Inner = field(Inner)


def refuses(mapping, *, cls=Outer):
    with pytest.raises(ConfigError) as caught:
        records.build(cls, mapping)
    return str(caught.value)


MISTAKES = [
    ({"widht": 8}, "config.widht: no such field (did you mean 'width'?); config has width, limit, flag, name, sizes, words, title, inner"),
    ({"zzz": 8}, "config.zzz: no such field; config has width"),
    ({3: 8}, "config.3: no such field"),
    ({"inner": {"rte": 1.0}}, "config.inner.rte: no such field (did you mean 'rate'?); config.inner has rate, pair"),
    ({"width": "8"}, "config.width = '8': expected int, not text"),
    ({"width": True}, "config.width = True: expected int, not bool"),
    ({"width": 8.0}, "config.width = 8.0: expected int, not float"),
    ({"width": None}, "config.width = None: expected int, not None"),
    ({"width": [8]}, "config.width = [8]: expected int, not list"),
    ({"width": {"a": 1}}, "config.width = {'a': 1}: expected int, not a group"),
    ({"limit": 2.5}, "config.limit = 2.5: expected int, not float"),
    ({"flag": 1}, "config.flag = 1: expected bool, not int"),
    ({"flag": "true"}, "config.flag = 'true': expected bool, not text"),
    ({"name": 3}, "config.name = 3: expected str, not int"),
    ({"name": "fancyy"}, "config.name = 'fancyy': not one of 'plain', 'fancy' (did you mean 'fancy'?)"),
    ({"inner": {"rate": "fast"}}, "config.inner.rate = 'fast': expected float, not text"),
    ({"inner": {"rate": True}}, "config.inner.rate = True: expected float, not bool"),
    ({"inner": {"rate": math.nan}}, "config.inner.rate = nan: expected a finite number"),
    ({"inner": {"rate": math.inf}}, "config.inner.rate = inf: expected a finite number"),
    ({"inner": {"rate": 0.0}}, "config.inner.rate = 0.0: must be greater than 0.0"),
    ({"inner": {"rate": 2}}, "config.inner.rate = 2.0: must be less than 2.0"),
    ({"width": 0}, "config.width = 0: must be at least 1"),
    ({"width": -3}, "config.width = -3: must be at least 1"),
    ({"width": 65}, "config.width = 65: must be at most 64"),
    ({"limit": 1}, "config.limit = 1: must be at least 2"),
    ({"sizes": 3}, "config.sizes = 3: expected a tuple, not int"),
    ({"sizes": "34"}, "config.sizes = '34': expected a tuple, not text"),
    ({"sizes": (3, 0)}, "config.sizes = (3, 0): must be at least 1"),
    ({"sizes": (3, 4.0)}, "config.sizes[1] = 4.0: expected int, not float"),
    ({"words": ("a", "c")}, "config.words = ('a', 'c'): not one of 'a', 'b'"),
    ({"inner": {"pair": (1, 2.0, 3)}}, "config.inner.pair = (1, 2.0, 3): expected 2 entries, not 3"),
    ({"inner": {"pair": [1]}}, "config.inner.pair = (1,): expected 2 entries, not 1"),
    ({"inner": {"pair": (1.5, 2.0)}}, "config.inner.pair[0] = 1.5: expected int, not float"),
    ({}, "config = {}: an empty group would drop every setting; leave it out to keep the defaults, or set fields one by one (width,"),
    ({"inner": {}}, "config.inner = {}: an empty group would drop every setting"),
    ({"inner": 5}, "config.inner = 5: expected a group of fields (rate, pair), not int"),
    ({"inner": None}, "config.inner = None: expected a group of fields (rate, pair), not None"),
]


@pytest.mark.parametrize(("mapping", "message"), MISTAKES, ids=[str(m) for m, _ in MISTAKES])
def test_a_mistake_is_named(mapping, message):
    assert message in refuses(mapping)


def test_a_required_field():
    assert refuses({"may": 2}, cls=Needy) == "config.must: required, and not given"
    assert records.build(Needy, {"must": 2}) == Needy(2, 1)


def test_what_is_left_out_keeps_its_default():
    assert records.build(Outer, {"width": 4}) == dataclasses.replace(Outer(), width=4)
    assert records.build(Outer, {"inner": {"rate": 1}}).inner == Inner(rate=1.0)


def test_ints_become_floats_and_lists_tuples():
    found = records.build(Outer, {"sizes": [3, 4], "inner": {"rate": 1, "pair": [2, 3]}})
    assert found.sizes == (3, 4) and found.inner == Inner(1.0, (2, 3.0))
    assert isinstance(found.inner.rate, float) and isinstance(found.inner.pair[1], float)
    assert hash(found) == hash(records.build(Outer, records.to_dict(found)))


def test_a_record_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Outer().width = 3


# --- overrides -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dotted", "text", "value"),
    [
        ("width", "12", 12),
        ("width", "1_2", 12),
        ("limit", "None", None),
        ("limit", "none", None),
        ("limit", "7", 7),
        ("flag", "true", True),
        ("flag", "False", False),
        ("name", "fancy", "fancy"),
        ("title", "None", None),
        ("title", "3", "3"),
        ("sizes", "3", (3,)),
        ("sizes", "3,4", (3, 4)),
        ("sizes", "(3, 4,)", (3, 4)),
        ("sizes", "[]", ()),
        ("words", "b,a", ("b", "a")),
        ("words", "('b', \"a\")", ("b", "a")),
        ("inner.rate", "1", 1.0),
        ("inner.rate", "1e-3", 1e-3),
    ],
)
def test_an_override_is_read_as_its_field_is_typed(dotted, text, value):
    found = records.parse(Outer, dotted, text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("dotted", "text", "message"),
    [
        ("widht", "8", "config.widht = '8': no such field (did you mean 'width'?)"),
        ("inner.rat", "8", "config.inner.rat = '8': no such field (did you mean 'rate'?); config.inner has rate, pair"),
        ("inner", "8", "config.inner = '8': this is a group, set one of its fields instead (rate, pair)"),
        ("width.x", "8", "config.width.x = '8': config.width is a single value, it has no field 'x'"),
        ("width", "1e3", "config.width = 1000.0: expected int, not float"),
        ("width", "8.0", "config.width = 8.0: expected int, not float"),
        ("width", "None", "config.width = 'None': expected int, not text"),
        ("width", "", "config.width = '': expected int, not text"),
        ("flag", "1", "config.flag = '1': expected bool, not text"),
        ("inner.rate", "nan", "config.inner.rate = nan: expected a finite number"),
        ("inner.rate", "-1", "config.inner.rate = -1.0: must be greater than 0.0"),
        ("sizes", "3,x", "config.sizes[1] = 'x': expected int, not text"),
        ("limit", "1", "config.limit = 1: must be at least 2"),
    ],
)
def test_a_wrong_override_is_named(dotted, text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        records.parse(Outer, dotted, text)


numbers = st.floats(1e-6, 1.999, allow_nan=False)


@st.composite
def outers(draw):
    return Outer(
        width=draw(st.integers(1, 64)),
        limit=draw(st.none() | st.integers(2, 10**12)),
        flag=draw(st.booleans()),
        name=draw(st.sampled_from(["plain", "fancy"])),
        sizes=tuple(draw(st.lists(st.integers(1, 10**9), max_size=4))),
        words=tuple(draw(st.lists(st.sampled_from("ab"), max_size=3))),
        inner=Inner(draw(numbers)),
    )


@given(outers())
def test_built_again_from_its_own_dict_and_its_own_texts(record):
    assert records.build(Outer, records.to_dict(record)) == record
    for name in ("width", "limit", "flag", "name", "sizes", "words"):
        assert records.parse(Outer, name, str(getattr(record, name))) == getattr(record, name)
    assert records.parse(Outer, "inner.rate", str(record.inner.rate)) == record.inner.rate


@given(outers(), outers())
def test_digests_are_equal_exactly_for_equal_records(a, b):
    assert (records.digest(records.canonical(a)) == records.digest(records.canonical(b))) == (a == b)
    assert json.loads(json.dumps(records.canonical(a))) == records.canonical(a)  # plain JSON, tuples as lists


# --- identity --------------------------------------------------------------------------------------------------


def test_the_digest_is_sha256_of_sorted_json():
    text = b'{"a":[1,2.5],"b":{"c":null,"d":true}}'
    assert records.digest({"b": {"d": True, "c": None}, "a": [1, 2.5]}) == hashlib.sha256(text).hexdigest()[:16]
    with pytest.raises(ValueError):
        records.digest({"a": math.nan})


def test_a_later_field_leaves_old_identities_alone():
    assert records.canonical(Grown()) == {"width": 8, "inner": {"rate": 0.5, "pair": [1, 2.0]}}
    assert records.canonical(Grown(later=0.1, switch="on"))["later"] == 0.1
    same = records.digest(records.canonical(Grown()))
    assert records.digest(records.canonical(Grown(note=4))) == same
    for changed in (Grown(later=0.1), Grown(switch="on"), Grown(width=9), Grown(inner=Inner(0.25))):
        assert records.digest(records.canonical(changed)) != same
