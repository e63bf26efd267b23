"""PHP's serialize() and unserialize(), for what is data: null, bool, int, float, string, array.

Objects, enums, references, custom serialisation and escaped strings are refused by name: they
run the reader's code, or mean nothing outside of PHP.

Rules:
- A length or a count is only a claim: it is compared with the bytes that are really there before
  anything is taken or made.
- Whatever the bytes are, load() returns a value or raises Undecodable. What it makes is no larger
  than a constant times what it read, and nests no deeper than MAX_DEPTH.
- A PHP string is bytes. It arrives as str where it is valid UTF-8, else as bytes
  (strings="bytes": always as bytes). str leaves as UTF-8.
- A PHP array is an ordered map. Keys 0..n-1 in that order arrive as a list, all others as a dict,
  an empty array as []. PHP makes an int of a string key that looks like one, and so do we.

serialize(): https://www.php.net/manual/function.serialize.php; the letters are those of
ext/standard/var_unserializer.re.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from procd.ipc.wire import MAX_DEPTH, Undecodable

Strings: TypeAlias = Literal["auto", "bytes"]

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_INT = re.compile(rb"[+-]?[0-9]{1,20}")
_LENGTH = re.compile(rb"[0-9]{1,10}")
_FLOAT = re.compile(
    rb"-?INF|NAN|[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,4})?"
)
_KEY = re.compile(rb"0|-?[1-9][0-9]{0,18}")  # a string key that PHP turns into an int
_LEAST_ENTRY = 6  # bytes that an array's entry takes at least: i:0;N;

_REFUSED = {
    b"O": "an object",
    b"C": "an object with a serialisation of its own",
    b"E": "an enum case",
    b"R": "a reference",
    b"r": "a reference to an object",
    b"S": "an escaped string",
}


def load(data: bytes, strings: Strings = "auto") -> object:
    """Return the value; raises Undecodable for whatever is not one serialized value of data."""
    reader = _Reader(data, strings)
    value = reader.value(0)
    if reader.at != len(data):
        raise reader.error(f"{len(data) - reader.at} bytes too many")
    return value


def dump(value: object) -> bytes:
    """Return what PHP's serialize() makes of such a value, byte for byte.

    Raises TypeError, naming the part, for other types, for integers over 64 bits, for keys that
    are neither int, str nor bytes or that are one key in PHP, and for what nests too deep.
    """
    parts: list[bytes] = []
    _dump(value, parts, "data", 0)
    return b"".join(parts)


# ---------------------------------------------------------------- reading


class _Reader:
    """One pass over the bytes; `at` is where the next one is read."""

    __slots__ = ("_as_bytes", "_data", "at")

    def __init__(self, data: bytes, strings: Strings) -> None:
        self._data = data
        self._as_bytes = strings == "bytes"
        self.at = 0

    def error(self, what: str) -> Undecodable:
        return Undecodable(f"not PHP's serialize(), byte {self.at}: {what}")

    def value(self, depth: int) -> object:
        letter = self._data[self.at : self.at + 1]
        match letter:
            case b"N":
                self._expect(b"N;")
                return None
            case b"b":
                return self._bool()
            case b"i":
                self._expect(b"i:")
                return self._int()
            case b"d":
                return self._float()
            case b"s":
                return self._text(self._string())
            case b"a":
                return self._array(depth)
        if letter in _REFUSED and self._data[self.at + 1 : self.at + 2] == b":":
            raise self.error(f"{_REFUSED[letter]} is refused: only plain data is read")
        raise self.error(f"no value begins with {letter!r}" if letter else "it ends too soon")

    def _expect(self, literal: bytes) -> None:
        if not self._data.startswith(literal, self.at):
            raise self.error(f"{literal!r} expected")
        self.at += len(literal)

    def _match(self, pattern: re.Pattern[bytes], end: bytes, what: str) -> bytes:
        found = pattern.match(self._data, self.at)
        if found is None or not self._data.startswith(end, found.end()):
            raise self.error(f"{what} expected")
        self.at = found.end() + len(end)
        return found[0]

    def _bool(self) -> bool:
        is_true = self._data.startswith(b"b:1;", self.at)
        self._expect(b"b:1;" if is_true else b"b:0;")
        return is_true

    def _int(self) -> int:
        number = int(self._match(_INT, b";", "an integer"))
        if not _INT_MIN <= number <= _INT_MAX:
            raise self.error(f"{number} has more than 64 bits")
        return number

    def _float(self) -> float:
        self._expect(b"d:")
        return float(self._match(_FLOAT, b";", "a float"))

    def _string(self) -> bytes:
        self._expect(b"s:")
        length = int(self._match(_LENGTH, b':"', "a length"))
        if length > len(self._data) - self.at:
            raise self.error(f"a string of {length} bytes, and {len(self._data) - self.at} follow")
        found = self._data[self.at : self.at + length]
        self.at += length
        self._expect(b'";')
        return found

    def _text(self, found: bytes) -> str | bytes:
        if self._as_bytes:
            return found
        try:
            return found.decode()
        except UnicodeDecodeError:
            return found

    def _array(self, depth: int) -> list[object] | dict[object, object]:
        if depth >= MAX_DEPTH:
            raise self.error(f"nested deeper than {MAX_DEPTH}")
        self._expect(b"a:")
        count = int(self._match(_LENGTH, b":{", "a count"))
        if count * _LEAST_ENTRY > len(self._data) - self.at:
            raise self.error(f"an array of {count}, and {len(self._data) - self.at} bytes follow")
        found: dict[object, object] = {}
        for _ in range(count):
            key = self._key()
            found[key] = self.value(depth + 1)
        self._expect(b"}")
        if all(key == place for place, key in enumerate(found)):
            return list(found.values())
        return found

    def _key(self) -> int | str | bytes:
        if self._data.startswith(b"i:", self.at):
            self.at += 2
            return self._int()
        key = self._string()
        number = _integer(key)
        return self._text(key) if number is None else number


def _integer(key: bytes) -> int | None:
    """Return the int that PHP uses for a string key, None if it stays a string."""
    if not _KEY.fullmatch(key):
        return None
    number = int(key)
    # PHP leaves the smallest integer a string: ZEND_HANDLE_NUMERIC_STR.
    return number if _INT_MIN < number <= _INT_MAX else None


# ---------------------------------------------------------------- writing


def _dump(value: object, parts: list[bytes], where: str, depth: int) -> None:
    match value:
        case None:
            parts.append(b"N;")
        case bool():
            parts.append(b"b:1;" if value else b"b:0;")
        case int():
            parts.append(b"i:%d;" % _sized(value, where))
        case float():
            parts.append(b"d:%b;" % _float_text(value))
        case str() | bytes():
            parts.append(_string_of(value, where))
        case list() | tuple():
            _dump_entries(list(enumerate(value)), parts, where, depth)
        case dict():
            entries = [(_key_of(key, where), item) for key, item in value.items()]
            if len(dict(entries)) != len(entries):
                raise TypeError(f"{where}: two keys of it are one key in PHP (5 and '5')")
            _dump_entries(entries, parts, where, depth)
        case _:
            raise TypeError(
                f"{where}: a {type(value).__name__} cannot be sent to PHP; allowed: None, bool,"
                " int, float, str, bytes, list, tuple, dict"
            )


def _dump_entries(
    entries: list[tuple[int | bytes, object]] | list[tuple[int, object]],
    parts: list[bytes],
    where: str,
    depth: int,
) -> None:
    if depth >= MAX_DEPTH:
        raise TypeError(f"{where:.80}: nested deeper than {MAX_DEPTH}")
    parts.append(b"a:%d:{" % len(entries))
    for key, item in entries:
        parts.append(b"i:%d;" % key if isinstance(key, int) else _string_of(key, where))
        _dump(item, parts, f"{where}[{key!r:.40}]", depth + 1)
    parts.append(b"}")


def _sized(number: int, where: str) -> int:
    if not _INT_MIN <= number <= _INT_MAX:
        raise TypeError(f"{where}: an integer of more than 64 bits")
    return number


def _string_of(value: str | bytes, where: str) -> bytes:
    if isinstance(value, str):
        try:
            value = value.encode()
        except UnicodeEncodeError as error:
            raise TypeError(f"{where}: {error.reason}") from None
    return b's:%d:"%b";' % (len(value), value)


def _key_of(key: object, where: str) -> int | bytes:
    match key:
        case bool():
            pass  # PHP makes 1 of true: another key than was meant
        case int():
            return _sized(key, where)
        case str() | bytes():
            try:
                text = key.encode() if isinstance(key, str) else key
            except UnicodeEncodeError as error:
                raise TypeError(f"{where}: {error.reason}") from None
            number = _integer(text)
            return text if number is None else number
    raise TypeError(f"{where}: a {type(key).__name__} cannot be a key in PHP: {key!r:.80}")


def _float_text(number: float) -> bytes:
    """Return *number* as PHP writes it with serialize_precision=-1, its default."""
    text = repr(number)
    if text in ("inf", "-inf", "nan"):
        return text.upper().encode()
    mantissa, _, exponent = text.partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    # Where the point stands, counted from before the first digit that is not 0.
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if not digits:
        return f"{sign}0".encode()
    if not -4 < point <= 17:
        text = f"{digits[0]}.{digits[1:] or '0'}E{point - 1:+d}"
    elif point <= 0:
        text = f"0.{'0' * -point}{digits}"
    elif len(digits) <= point:
        text = digits.ljust(point, "0")
    else:
        text = f"{digits[:point]}.{digits[point:]}"
    return f"{sign}{text}".encode()
