"""JSON as RFC 8259 has it: what every other language reads back the same.

Rules:
- Refused, in both directions: NaN and Infinity, integers over 64 bits, lone surrogates, and
  what nests deeper than MAX_DEPTH. Written is only what comes back: no bytes, no keys but str.
- Whatever the bytes are, load() returns a value or raises Undecodable.
"""

from __future__ import annotations

import json
import math
from typing import NoReturn

from procd.ipc.wire import MAX_DEPTH, Undecodable

_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1  # as MessagePack


def load(data: bytes) -> object:
    """Return the value; raises Undecodable. Of two equal keys the later one counts."""
    try:
        value: object = json.loads(
            data.decode(), parse_constant=_no_constant, parse_float=_finite, parse_int=_sized
        )
        _check(value, "data", 0)
    except (ValueError, TypeError, RecursionError) as error:
        raise Undecodable(f"not JSON: {error}") from None
    return value


def dump(value: object) -> bytes:
    """Return *value* as compact UTF-8; raises TypeError, naming the part, for what is no JSON."""
    _check(value, "data", 0)
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _check(value: object, where: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise TypeError(f"{where:.80}: nested deeper than {MAX_DEPTH}")
    match value:
        case list() | tuple():
            for place, item in enumerate(value):
                _check(item, f"{where}[{place}]", depth + 1)
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise TypeError(f"{where}: in JSON a key is text, not {key!r:.80}")
                _check_text(key, where)
                _check(item, f"{where}[{key!r:.40}]", depth + 1)
        case _:
            _check_leaf(value, where)


def _check_leaf(value: object, where: str) -> None:
    match value:
        case None | bool():
            pass
        case int():
            if not _INT_MIN <= value <= _INT_MAX:
                raise TypeError(f"{where}: an integer of more than 64 bits")
        case float():
            if not math.isfinite(value):
                raise TypeError(f"{where}: JSON has no {value}")
        case str():
            _check_text(value, where)
        case _:
            raise TypeError(f"{where}: JSON has no {type(value).__name__}")


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TypeError(f"{where}: {error.reason}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text:.40} is larger than any float")
    return number


def _sized(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"{text:.40} has more than 64 bits")
    return int(text)
