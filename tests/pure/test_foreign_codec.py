"""The formats by name, JSON above all: what travels, what is refused, and any bytes at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from procd.ipc.foreign.codec import CODECS
from procd.ipc.wire import MAX_DEPTH, Undecodable

texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=30,
)
every_codec = pytest.mark.parametrize("name", CODECS)
load, dump = CODECS["json"].decode, CODECS["json"].encode


def test_the_formats_are_these() -> None:
    assert list(CODECS) == ["raw", "text", "json", "msgpack", "php"]
    assert all(codec.name == name for name, codec in CODECS.items())


@given(json_values)
def test_json_comes_back(value: object) -> None:
    assert repr(load(dump(value))) == repr(value)


@given(st.binary())
def test_raw_is_the_bytes_themselves(data: bytes) -> None:
    assert CODECS["raw"].decode(CODECS["raw"].encode(data)) == data


@given(texts)
def test_text_comes_back(text: str) -> None:
    assert CODECS["text"].decode(CODECS["text"].encode(text)) == text


@every_codec
@given(data=st.binary(max_size=200))
@example(data=b"")
@example(data=b"\xef\xbb\xbf1")
@example(data=b"[" * 100_000)
@example(data=b'{"a":' * 100_000)
def test_random_bytes_are_a_value_or_undecodable_and_nothing_else(name: str, data: bytes) -> None:
    reading(name, data)


def reading(name: str, data: bytes) -> object:
    try:
        return CODECS[name].decode(data)
    except Undecodable:
        return None


@settings(max_examples=200)
@given(json_values, st.data())
def test_damaged_json_is_a_value_or_undecodable(value: object, data: st.DataObject) -> None:
    dumped = bytearray(dump(value))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(dumped) - 1))
        dumped[place] = data.draw(
            st.integers(0, 255) | st.sampled_from(b'0123456789[]{}",:eE.-\\u')
        )
    back = reading("json", bytes(dumped))
    assert repr(load(dump(back))) == repr(back)


@pytest.mark.parametrize(
    "data",
    [
        b"NaN",
        b"[Infinity]",
        b"1e400",
        b"-1e999",
        b"9" * 21,
        b"18446744073709551616",
        b"-" + b"9" * 100_000,
        b'"\\ud800"',
        b'{"\\udc00": 1}',
        b"\xff",
        b'"\xc3"',
        b"1\x00",
        "[1]".encode("utf-16"),
        b"\xef\xbb\xbf[1]",
        b"[1,]",
        b"{'a': 1}",
        b"1 2",
        b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2),
    ],
    ids=lambda data: repr(data)[:30],
)
def test_what_other_readers_would_not_take_is_not_json(data: bytes) -> None:
    with pytest.raises(Undecodable, match=r"^not JSON: "):
        load(data)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [b"x"]}, r"data\['a'\]\[0\]: JSON has no bytes"),
        ({1: 2}, "in JSON a key is text, not 1"),
        ([float("nan")], r"data\[0\]: JSON has no nan"),
        (2**64, "64 bits"),
        ("\ud800", "surrogates"),
        ({"\ud800": 1}, "surrogates"),
        ({1}, "JSON has no set"),
    ],
)
def test_what_json_cannot_say_is_a_type_error_that_names_it(value: object, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        dump(value)


def test_what_nests_too_deep_is_no_json() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(TypeError, match="nested deeper"):
        dump(loop)


def test_json_is_compact_and_keeps_letters() -> None:
    assert dump({"a": ["我", 1.0]}) == '{"a":["我",1.0]}'.encode()


@pytest.mark.parametrize(
    ("name", "value"), [("raw", "text"), ("raw", 7), ("text", b"x"), ("text", "\ud800")]
)
def test_a_value_of_another_kind_is_a_type_error(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=r"^data: "):
        CODECS[name].encode(value)


def test_text_that_is_none_says_where() -> None:
    with pytest.raises(Undecodable, match="byte 2 is no UTF-8"):
        CODECS["text"].decode(b"ab\xff")
