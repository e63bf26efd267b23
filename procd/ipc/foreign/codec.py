"""The formats that a message can have, by name: bytes to a value and back.

| name    | value | refuses |
|---------|-------|---------|
| raw     | bytes | |
| text    | str, as UTF-8 | other bytes |
| json    | None, bool, int, float, str, list, dict | NaN, bytes, keys that are no text |
| msgpack | those, bytes and datetime | other extension types |
| php     | None, bool, int, float, str, bytes, list, dict | objects, references |

Every decode() returns a value or raises Undecodable, every encode() returns bytes or raises
TypeError that names the part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from procd.ipc import wire
from procd.ipc.foreign import jsontext, php
from procd.ipc.wire import Undecodable


@dataclass(frozen=True, slots=True)
class Codec:
    """One format, both ways."""

    name: str
    encode: Callable[[object], bytes]
    decode: Callable[[bytes], object]


def _from_bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"data: raw is bytes, not {type(value).__name__}")
    return value


def _to_bytes(data: bytes) -> bytes:
    return data


def _from_text(value: object) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"data: text is str, not {type(value).__name__}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise TypeError(f"data: {error.reason}") from None


def _to_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Undecodable(f"not text: byte {error.start} is no UTF-8") from None


CODECS = {
    codec.name: codec
    for codec in (
        Codec("raw", _from_bytes, _to_bytes),
        Codec("text", _from_text, _to_text),
        Codec("json", jsontext.dump, jsontext.load),
        Codec("msgpack", wire.pack, wire.unpack),
        Codec("php", php.dump, php.load),
    )
}
