"""PHP's serialize() without PHP: what travels, what is refused by name, and any bytes at all.

tests/interop has the same beside the real PHP.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from procd.ipc.foreign import php
from procd.ipc.wire import MAX_DEPTH, Undecodable

integers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]))
# Bytes that are UTF-8 come back as str: bytes that are none, for a round trip.
blobs = st.binary().map(lambda data: b"\xff" + data)
# A key that looks like an integer is one in PHP.
text_keys = (texts | blobs).filter(lambda key: not re.fullmatch(r"-?[0-9]+", str(key)))
leaves = st.none() | st.booleans() | integers | st.floats(allow_nan=False) | texts | blobs


def as_php_has_it(found: dict[Any, object]) -> object:
    return list(found.values()) if list(found) == list(range(len(found))) else found


values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(integers | text_keys, inner, max_size=5).map(as_php_has_it)
    ),
    max_leaves=30,
)


@given(values)
def test_what_is_dumped_comes_back(value: object) -> None:
    back = php.load(php.dump(value))
    assert back == value
    assert repr(back) == repr(value)  # 1, 1.0 and True, 0.0 and -0.0 are not the same


VECTORS = [
    (None, b"N;"),
    (True, b"b:1;"),
    (False, b"b:0;"),
    (-(2**63), b"i:-9223372036854775808;"),
    (0.1, b"d:0.1;"),
    (1.0, b"d:1;"),
    (-0.0, b"d:-0;"),
    (1e-4, b"d:0.0001;"),
    (1e-5, b"d:1.0E-5;"),
    (1e16, b"d:10000000000000000;"),
    (1e17, b"d:1.0E+17;"),
    (123456789012345678.0, b"d:1.2345678901234568E+17;"),
    (5e-324, b"d:5.0E-324;"),
    (float("inf"), b"d:INF;"),
    (float("-inf"), b"d:-INF;"),
    ("", b's:0:"";'),
    ("我", 's:3:"我";'.encode()),
    (b"\xff\0", b's:2:"\xff\0";'),
    ('a";i:1;', b's:7:"a";i:1;";'),
    ([], b"a:0:{}"),
    ([1, "a"], b'a:2:{i:0;i:1;i:1;s:1:"a";}'),
    ({"n": 7, -3: None}, b'a:2:{s:1:"n";i:7;i:-3;N;}'),
    ({1: "b", 0: "a"}, b'a:2:{i:1;s:1:"b";i:0;s:1:"a";}'),
    ([[], {"a": [1.5]}], b'a:2:{i:0;a:0:{}i:1;a:1:{s:1:"a";a:1:{i:0;d:1.5;}}}'),
]


@pytest.mark.parametrize(("value", "data"), VECTORS, ids=lambda part: repr(part)[:40])
def test_a_value_has_these_bytes(value: object, data: bytes) -> None:
    assert php.dump(value) == data
    back = php.load(data)
    assert (back, type(back)) == (value, type(value))


def test_nan_travels() -> None:
    assert repr(php.load(php.dump(float("nan")))) == "nan"


def test_strings_arrive_as_bytes_where_that_is_asked_for() -> None:
    data = php.dump({"k": "v", "7": b"\xff"})
    assert php.load(data) == {"k": "v", 7: b"\xff"}
    assert php.load(data, strings="bytes") == {b"k": b"v", 7: b"\xff"}


@pytest.mark.parametrize(
    ("key", "arrives"),
    [
        ("5", 5),
        ("-5", -5),
        ("0", 0),
        ("-0", "-0"),
        ("05", "05"),
        ("+5", "+5"),
        ("5.0", "5.0"),
        ("", ""),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", "9223372036854775808"),
        ("-9223372036854775808", "-9223372036854775808"),
    ],
)
def test_a_key_that_looks_like_an_integer_is_one(key: str, arrives: int | str) -> None:
    assert php.load(php.dump({key: 1, "other": 2})) == {arrives: 1, "other": 2}
    raw = b'a:2:{s:%d:"%b";i:1;s:5:"other";i:2;}' % (len(key), key.encode())
    assert php.load(raw) == {arrives: 1, "other": 2}


def test_of_two_equal_keys_the_later_one_counts_as_in_php() -> None:
    assert php.load(b'a:2:{i:0;i:1;s:1:"0";i:2;}') == [2]


def test_a_tuple_arrives_as_a_list() -> None:
    assert php.load(php.dump((1, (2,)))) == [1, [2]]


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b'O:8:"stdClass":0:{}', "an object is refused"),
        (b'O:+8:"stdClass":0:{}', "an object is refused"),
        (b'C:3:"Foo":2:{ab}', "an object with a serialisation of its own is refused"),
        (b'E:11:"Suit:Hearts";', "an enum case is refused"),
        (b"R:1;", "a reference is refused"),
        (b"r:1;", "a reference to an object is refused"),
        (b'S:1:"\\61";', "an escaped string is refused"),
    ],
)
def test_what_is_no_data_is_refused_by_name_wherever_it_stands(data: bytes, name: str) -> None:
    for inside in (data, b"a:1:{i:0;%b}" % data):
        with pytest.raises(Undecodable, match=name):
            php.load(inside)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"N",
        b"n;",
        b"N;N;",
        b"b:2;",
        b"b:true;",
        b"i:;",
        b"i:1",
        b"i:1.5;",
        b"i:9223372036854775808;",
        b"i:" + b"9" * 100_000 + b";",
        b"i:\xd9\xa1;",  # an Arabic digit
        b"d:;",
        b"d:nan;",
        b"d:1e;",
        b"d:1_0;",
        b"d: 1;",
        b"d:" + b"9" * 100_000 + b";",
        b's:1:"";',
        b's:2:"a";',
        b's:-1:"a";',
        b's:99999999999:"a";',
        b's:4294967297:"a";',
        b's:1:"ab";',
        b"s:1:a;",
        b"a:1:{}",
        b"a:-1:{}",
        b"a:1:{i:0;}",
        b"a:0:{i:0;N;}",
        b"a:1:{N;N;}",
        b"a:1:{d:1;N;}",
        b"a:1:{a:0:{}N;}",
        b"a:4000000000:{i:0;N;}",
        b"a:1:{i:0;N;",
    ],
    ids=lambda data: repr(data)[:30],
)
def test_bytes_that_are_not_quite_it_are_undecodable(data: bytes) -> None:
    with pytest.raises(Undecodable, match=r"^not PHP's serialize\(\), byte [0-9]+: "):
        php.load(data)


def nested(depth: int) -> object:
    value: object = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_what_nests_too_deep_is_refused_both_ways() -> None:
    assert php.load(php.dump(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(TypeError, match="nested deeper"):
        php.dump(nested(MAX_DEPTH + 1))
    for depth in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(Undecodable, match="nested deeper"):
            php.load(b"a:1:{i:0;" * depth + b"N;" + b"}" * depth)
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(TypeError, match="nested deeper"):
        php.dump(loop)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2**63, "data: an integer of more than 64 bits"),
        ([1, {"a": {1}}], r"data\[1\]\[b'a'\]: a set cannot be sent to PHP"),
        (dt.datetime(2026, 1, 1), "data: a datetime cannot"),  # noqa: DTZ001
        ({True: 1}, "data: a bool cannot be a key in PHP"),
        ({None: 1}, "a NoneType cannot be a key"),
        ({2**63: 1}, "64 bits"),
        ({5: 1, "5": 2}, "two keys of it are one key in PHP"),
        ({"a": 1, b"a": 2}, "two keys"),
        ("\ud800", "surrogates"),
        ({"\ud800": 1}, "surrogates"),
    ],
)
def test_what_php_cannot_have_is_a_type_error_that_names_it(value: object, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        php.dump(value)


# ---------------------------------------------------------------- any bytes


def reading(data: bytes) -> None:
    with contextlib.suppress(Undecodable):
        php.load(data)


@given(
    st.binary(max_size=200) | st.text('abdisNOCR:;{}"0123456789-.E', max_size=60).map(str.encode)
)
@example(b'a:1:{s:1:"a"')
def test_random_bytes_are_a_value_or_undecodable_and_nothing_else(data: bytes) -> None:
    reading(data)


@given(values, st.data())
def test_damaged_bytes_are_a_value_or_undecodable(value: object, data: st.DataObject) -> None:
    dumped = bytearray(php.dump(value))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(dumped) - 1))
        dumped[place] = data.draw(st.integers(0, 255) | st.sampled_from(b'0123456789:;"{}aisbdN'))
    reading(bytes(dumped))


@settings(max_examples=50)
@given(values)
def test_bytes_cut_short_or_with_something_behind_are_undecodable(value: object) -> None:
    dumped = php.dump(value)
    for damaged in (dumped[:-1], dumped + b"\0", dumped[: len(dumped) // 2]):
        with pytest.raises(Undecodable):
            php.load(damaged)


@pytest.mark.parametrize("head", [b"a:1000000000:{", b"a:30000:{i:0;", b's:1000000000:"'])
def test_a_promise_of_billions_is_not_believed(head: bytes) -> None:
    with pytest.raises(Undecodable, match=r"follow|deeper"):
        php.load(head * 20_000)
