"""Values to bytes and back: MessagePack for task data, results, messages and channels.

Pure, and the only room that knows msgpack. What goes in is checked at the call, so that
the sender sees the error and not some process later. Never pickle: bytes from outside
are data.

MessagePack has no tuple: a tuple arrives as a list. Datetimes keep their instant; aware
ones arrive in UTC, naive ones naive. File names that are no UTF-8 travel as Python has them
(os.fsdecode).
"""

from __future__ import annotations

import datetime as dt
from typing import Any, TypeAlias

import msgpack

Value: TypeAlias = (
    "bool | int | float | str | bytes | list[Value] | tuple[Value, ...]"
    " | dict[Value, Value] | dt.datetime | None"
)

MAX_DEPTH = 200  # msgpack itself stops at 511
_HEAD_BYTES = 4096  # of a packed list; its first item is to be found there
_NAIVE = 1  # our extension type: a datetime without zone, as ISO text
_KEPT_BYTES = 1 << 16
_idle: list[msgpack.Packer] = []  # of this process; one that has failed is not put back
_PLAIN = (str, bytes, int, float, bool, type(None))
_EXACTLY = frozenset(_PLAIN)


class Undecodable(ValueError):
    """These bytes are no message of ours."""


def pack(value: object) -> bytes:
    """Return *value* as MessagePack.

    Raises TypeError, naming the part, for whatever does not survive the way: other types,
    integers over 64 bits, keys that are neither None, bool, int, float, str nor bytes.
    """
    if not _is_plain(value, MAX_DEPTH):
        _check(value, "data", 0)
    try:
        packed = _packed(value)
    except (OverflowError, ValueError, TypeError) as error:
        place = _place(value, "data")
        raise TypeError(f"{place}: not representable in MessagePack: {error}") from None
    return packed


def _packed(value: object) -> bytes:
    """Pack by one of the packers that nobody uses now: to make one takes longer than to pack."""
    try:
        packer = _idle.pop()
    except IndexError:
        packer = msgpack.Packer(default=_extend, datetime=True, unicode_errors="surrogateescape")
    packed: bytes = packer.pack(value)
    if len(packed) <= _KEPT_BYTES:  # it keeps its buffer
        _idle.append(packer)
    return packed


def unpack(data: bytes | memoryview) -> object:
    """Return the value; raises Undecodable on anything that pack() did not make."""
    try:
        value: object = msgpack.unpackb(
            data,
            strict_map_key=False,
            timestamp=3,
            ext_hook=_contract,
            unicode_errors="surrogateescape",
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise Undecodable(f"not MessagePack: {error}") from None
    except (msgpack.UnpackException, msgpack.exceptions.StackError) as error:
        raise Undecodable(f"not MessagePack: {error}") from None
    return value


def first(data: bytes | memoryview) -> object:
    """Return the first item of a packed list without unpacking the rest; raises Undecodable."""
    unpacker = msgpack.Unpacker(unicode_errors="surrogateescape")
    unpacker.feed(data[:_HEAD_BYTES])
    try:
        unpacker.read_array_header()
        item: object = unpacker.unpack()
    except (ValueError, msgpack.UnpackException, msgpack.exceptions.StackError) as error:
        raise Undecodable(f"not a list in MessagePack: {error}") from None
    return item


def _is_plain(value: Any, depth: int) -> bool:  # noqa: ANN401 - whatever somebody sends
    """Tell whether a value surely survives the way; _check() knows all that do."""
    kind = type(value)
    if kind is dict:
        for key in value:
            if type(key) not in _EXACTLY:
                return False
        items = value.values()
    elif kind is list or kind is tuple:
        items = value
    else:
        return kind in _EXACTLY
    for item in items:
        if type(item) in _EXACTLY:
            continue
        if not depth or not _is_plain(item, depth - 1):
            return False
    return True


def _check(value: object, where: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise TypeError(f"{where}: nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, _PLAIN):
                raise TypeError(f"{where}: a {type(key).__name__} cannot be a key: {key!r:.80}")
            if type(item) not in _PLAIN:
                _check(item, f"{where}[{key!r:.40}]", depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            if type(item) not in _PLAIN:
                _check(item, f"{where}[{index}]", depth + 1)
    else:
        _check_leaf(value, where)


def _check_leaf(value: object, where: str) -> None:
    if isinstance(value, dt.datetime):
        _check_instant(value, where)
    elif not isinstance(value, _PLAIN):
        raise TypeError(
            f"{where}: a {type(value).__name__} cannot be sent; allowed: None, bool, int, float, "
            "str, bytes, list, tuple, dict, datetime"
        )


def _place(value: object, where: str) -> str:
    """Return where in *value* the part is that msgpack refuses; it passed _check()."""
    if isinstance(value, dict):
        parts = [
            (f"{where}[{key!r:.40}]", part) for key, item in value.items() for part in (key, item)
        ]
    elif isinstance(value, (list, tuple)):
        parts = [(f"{where}[{index}]", item) for index, item in enumerate(value)]
    else:
        return where
    for place, part in parts:
        try:
            msgpack.packb(part, default=_extend, datetime=True, unicode_errors="surrogateescape")
        except (OverflowError, ValueError, TypeError):
            return _place(part, place)
    return where


def _check_instant(value: dt.datetime, where: str) -> None:
    try:
        if value.tzinfo is not None:
            value.astimezone(dt.UTC)
    except OverflowError:
        raise TypeError(f"{where}: {value} is outside of UTC's calendar") from None


def _extend(value: object) -> object:
    # Aware datetimes went the native way; what comes here passed _check().
    if isinstance(value, dt.datetime):
        return msgpack.ExtType(_NAIVE, value.isoformat().encode())
    raise TypeError(f"a {type(value).__name__} cannot be sent: {value!r:.80}")


def _contract(code: int, data: bytes) -> object:
    if code != _NAIVE:
        raise Undecodable(f"unknown extension type {code}")
    return dt.datetime.fromisoformat(data.decode("ascii"))
