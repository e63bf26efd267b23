"""Values to bytes and back: what may travel, what is refused by name, and any bytes at all."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import os
import pickle
import re
import uuid
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from procd.ipc import wire
from procd.ipc.wire import MAX_DEPTH, Undecodable

integers = st.integers(-(2**63), 2**64 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]))
keys = st.none() | st.booleans() | integers | st.floats(allow_nan=False) | texts | st.binary()
FIRST, LAST = dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30)  # noqa: DTZ001
naive = st.datetimes(FIRST, LAST)
aware = st.datetimes(FIRST, LAST, timezones=st.timezones())
leaves = keys | naive
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=30,
)


@given(values)
def test_what_is_packed_comes_back(value: object) -> None:
    assert wire.unpack(wire.pack(value)) == value


@settings(max_examples=30)
@given(values)
def test_a_view_of_a_buffer_is_read_like_bytes(value: object) -> None:
    assert wire.unpack(memoryview(wire.pack(value))) == value


@given(naive)
def test_a_naive_datetime_stays_naive(moment: dt.datetime) -> None:
    back = wire.unpack(wire.pack(moment))
    assert back == moment.replace(fold=0)
    assert isinstance(back, dt.datetime)
    assert back.tzinfo is None


@settings(max_examples=50)
@given(aware)
def test_an_aware_datetime_keeps_its_instant_and_comes_in_utc(moment: dt.datetime) -> None:
    back = wire.unpack(wire.pack(moment))
    assert isinstance(back, dt.datetime)
    assert back == moment.astimezone(dt.UTC)
    assert back.utcoffset() == dt.timedelta(0)


@pytest.mark.parametrize(
    "moment",
    [
        dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-1))),
        dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=1))),
    ],
)
def test_an_instant_outside_of_utcs_calendar_is_refused_at_the_sender(moment: dt.datetime) -> None:
    with pytest.raises(TypeError, match=r"^data\[0\]: .* is outside of UTC's calendar"):
        wire.pack([moment])


def test_a_tuple_arrives_as_a_list() -> None:
    assert wire.unpack(wire.pack((1, ("a", b"b")))) == [1, ["a", b"b"]]


def test_nan_and_infinity_travel() -> None:
    assert repr(wire.unpack(wire.pack([float("nan"), float("-inf")]))) == "[nan, -inf]"


class Colour(enum.IntEnum):
    RED = 1


class Name(str):
    __slots__ = ()


Point = namedtuple("Point", "x y")  # noqa: PYI024 - what apps have


def test_what_inherits_from_an_allowed_type_arrives_as_that() -> None:
    value = {"a": Colour.RED, "b": Name("n"), "c": Point(1, 2), "d": OrderedDict(e=1)}
    back = wire.unpack(wire.pack(value))
    assert back == {"a": 1, "b": "n", "c": [1, 2], "d": {"e": 1}}


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def test_what_nests_too_deep_is_refused_before_msgpack_would() -> None:
    assert wire.unpack(wire.pack(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(TypeError, match=f"nested deeper than {MAX_DEPTH}"):
        wire.pack(nested(MAX_DEPTH + 2))


def test_what_holds_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(TypeError, match="nested deeper"):
        wire.pack(loop)


REFUSED: list[object] = [
    object(),
    {1},
    frozenset(),
    1j,
    decimal.Decimal(1),
    uuid.UUID(int=1),
    Path("/"),
    dt.date(2026, 1, 1),
    dt.time(1),
    dt.timedelta(1),
    bytearray(b"x"),
    memoryview(b"x"),
    ValueError("x"),
    int,
    print,
    iter([]),
    range(3),
    Ellipsis,
    enum.Enum("Plain", "A"),
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_another_type_is_refused_at_the_call_with_its_name_and_place(value: object) -> None:
    name = type(value).__name__
    with pytest.raises(TypeError, match=rf"^data: a {name} cannot be sent; allowed: None, bool"):
        wire.pack(value)
    place = re.escape("data['job'][1]['image']")
    with pytest.raises(TypeError, match=rf"^{place}: a {name} cannot be sent"):
        wire.pack({"job": [0, {"image": value}]})


@pytest.mark.parametrize("key", [(1, 2), dt.datetime(2026, 1, 1), frozenset(), object()])  # noqa: DTZ001
def test_another_key_is_refused_with_its_name_and_place(key: object) -> None:
    with pytest.raises(TypeError, match=rf"^data\[0\]: a {type(key).__name__} cannot be a key: "):
        wire.pack([{key: 1}])


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
def test_an_integer_over_64_bits_is_a_type_error(value: int) -> None:
    with pytest.raises(TypeError):
        wire.pack({"n": value})


def test_an_integer_over_64_bits_is_refused_with_its_place() -> None:
    with pytest.raises(TypeError, match=r"data\['n'\]"):
        wire.pack({"n": 2**64})


@given(st.binary(max_size=30))
@example(b"/srv/caf\xe9.txt")
def test_a_file_name_that_is_no_utf_8_comes_back_as_python_has_it(name: bytes) -> None:
    known = os.fsdecode(name)
    assert wire.unpack(wire.pack({known: [known]})) == {known: [known]}


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_a_text_that_is_neither_unicode_nor_a_file_name_is_a_type_error(text: str) -> None:
    with pytest.raises(TypeError, match="surrogates not allowed"):
        wire.pack([text])


# ---------------------------------------------------------------- any bytes


def reading(data: bytes) -> object:
    try:
        return wire.unpack(data)
    except Undecodable:
        return Undecodable


@given(st.binary(max_size=300))
@example(b"")
@example(b"\xc1")
@example(b"\x81\x90\x01")  # a list as a key
@example(b"\xd6\xff\0\0\0\0")
@example(b"\xc7\x0c\xff" + b"\xff" * 12)  # a timestamp beyond the calendar
@example(b"\xc7\x03\x01abc")  # our extension type with no date
@example(b"\xc7\x01\x01\xff")
@example(b"\xd4\x05x")  # an extension type of nobody
@example(b"\x91" * 2000 + b"\xc0")
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xa1\xff")
def test_random_bytes_are_a_value_or_undecodable_and_nothing_else(data: bytes) -> None:
    reading(data)


@given(values, st.data())
def test_damaged_messages_are_a_value_or_undecodable(value: object, data: st.DataObject) -> None:
    packed = bytearray(wire.pack(value))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    reading(bytes(packed))


@settings(max_examples=50)
@given(values)
def test_a_message_cut_short_or_with_something_behind_is_undecodable(value: object) -> None:
    packed = wire.pack(value)
    with pytest.raises(Undecodable):
        wire.unpack(packed[:-1])
    with pytest.raises(Undecodable):
        wire.unpack(packed + b"\0")


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("somebody unpickled it",))


def test_a_pickle_is_bytes_like_any_other() -> None:
    reading(pickle.dumps(Bomb()))
    assert wire.unpack(wire.pack(pickle.dumps(Bomb()))) == pickle.dumps(Bomb())


def test_a_promise_of_billions_of_items_allocates_none() -> None:
    """Each head promises as many items as the message has bytes, 600 times nested."""
    size = 200_000
    data = (b"\xdd" + size.to_bytes(4, "big")) * 600
    with pytest.raises(Undecodable):
        wire.unpack(data + b"\xc0" * (size - len(data)))


def test_the_first_item_of_a_list_is_found_without_the_rest() -> None:
    assert wire.first(wire.pack(["name", [b"x" * 1_000_000], {}])) == "name"


@pytest.mark.parametrize(
    "data", [b"", wire.pack([]), wire.pack(7), wire.pack({"a": 1}), b"\x93\xda"]
)
def test_what_has_no_first_item_is_undecodable(data: bytes) -> None:
    with pytest.raises(wire.Undecodable):
        wire.first(data)
