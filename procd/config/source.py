"""Bytes of YAML to values that know their place. The only file that knows YAML.

It knows nothing of procd's keys. What comes out are scalars, lists and mappings, each with line
and column. The rules, all narrower than YAML's own:

- No object is ever constructed: only PyYAML's event stream is read, and without recursion, so that
  neither a tag nor a deep nesting can do anything.
- Aliases, anchors and tags are refused: a config is read by people, top to bottom.
- A key that stands twice is a fault (YAML says so, PyYAML takes the last).
- 12:30:00 and 2024-01-01 stay the text that they look like; PyYAML would make 45000 and a date.
- Whatever the bytes are, the answer is a value or faults, never another exception.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import yaml

from procd.config.fault import Fault, Place, printable, quoted

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 8
MAX_VALUES = 10_000  # bounds the time that the slow, pure-Python parser may take

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **{f(w): True for w in ("yes", "true", "on") for f in (str.lower, str.title, str.upper)},
    **{f(w): False for w in ("no", "false", "off") for f in (str.lower, str.title, str.upper)},
}
# At most 40 characters: int() of thousands of digits raises, or takes its time.
_SHORT = r"(?=.{1,40}\Z)"
_INT = re.compile(_SHORT + r"[-+]?(0x[0-9a-fA-F_]+|0b[01_]+|0o?[0-7_]+|0|[1-9][0-9_]*)", re.ASCII)
_FLOAT = re.compile(
    _SHORT + r"[-+]?(([0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))"
    r"|\.(nan|NaN|NAN)",
    re.ASCII,
)
_FORBIDDEN = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value: what YAML takes it for, and the text as it was written."""

    place: Place
    data: bool | int | float | str | None
    text: str


@dataclass(frozen=True, slots=True)
class Items:
    """A YAML list."""

    place: Place
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Pairs:
    """A YAML mapping, in the order of the file; no two keys are the same text."""

    place: Place
    pairs: tuple[tuple[Scalar, Node], ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """A value whose fault has been said already; nobody should add another."""

    place: Place


Node = Scalar | Items | Pairs | Broken


def read_file(path: str, faults: list[Fault]) -> Node | None:
    """Read the YAML file at the absolute *path*; None and a fault if it has none."""
    try:
        raw = _contents(path)
    except (OSError, ValueError) as error:
        # No line: there is no text. The name alone is what an editor or a shell can jump to.
        faults.append(Fault(Place(0, 0, printable(path)), "", _refusal(error)))
        return None
    head = Place(1, 1, printable(path))
    if len(raw) > MAX_BYTES:
        faults.append(Fault(head, "", "the file is larger than 1 MiB"))
        return None
    try:
        return read_text(raw.decode(), head, faults)
    except UnicodeDecodeError as error:
        place = _place_in(raw[: error.start].decode(), head)
        words = f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
        faults.append(Fault(place, "", words))
        return None


def read_text(text: str, head: Place, faults: list[Fault]) -> Node | None:
    """Read YAML *text* whose first character stands at *head*; None after a fault of syntax.

    A *head* with line 0 (an option, a variable) is the place of all that is in it.
    """
    odd = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if odd:
        place = _place_in(text[: odd.start()], head)
        name = "NUL byte" if odd[0] == "\0" else f"character U+{ord(odd[0]):04X}"
        faults.append(Fault(place, "", f"{name}: a config is plain text"))
        return None
    return _Reading(head, faults).run(text)


def _contents(path: str) -> bytes:
    # O_NONBLOCK: opening a FIFO without a writer would otherwise wait for ever.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError
        return file.read(MAX_BYTES + 1)


def _refusal(error: OSError | ValueError) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such file"
        case PermissionError():
            return f"uid {os.geteuid()} may not read it; change its owner or mode"
        case IsADirectoryError() | ValueError():
            return "is no regular file; give the YAML file itself"
    return f"cannot be read: {printable(error.strerror or str(error))}"


def _place_in(before: str, head: Place) -> Place:
    """Return where the text after *before* stands."""
    if not head.line:
        return head
    lines = before.split("\n")
    return Place(len(lines), len(lines[-1]) + 1, head.name)


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    place: Place
    is_mapping: bool
    children: list[Node] = field(default_factory=list)


class _Mark(Protocol):
    """PyYAML's place: from 0."""

    line: int
    column: int


class _TooMuch(Exception):
    """The text is valid but beyond the limits of this file."""


class _Reading:
    """One pass over one text: events in, one value and faults out."""

    def __init__(self, head: Place, faults: list[Fault]) -> None:
        self._head = head
        self._faults = faults
        self._open: list[_Open] = []
        self._root: Node | None = None
        self._values = 0

    def run(self, text: str) -> Node | None:
        place = self._head
        try:
            for event in _events(text):
                place = self._place(event.start_mark)
                self._take(event, place)
        except yaml.MarkedYAMLError as error:
            place = self._place(error.problem_mark or error.context_mark)
            words = ": ".join(printable(w) for w in (error.context, error.problem) if w)
            self._refuse(place, f"not valid YAML: {words}")
        except _TooMuch as error:
            self._refuse(place, str(error))
        except (ValueError, OverflowError):
            # PyYAML's own slips: "\UFFFFFFFF", or a %YAML version of thousands of digits.
            self._refuse(place, "not valid YAML: a number in or after this is too large")
        else:
            return self._root or Scalar(self._head, None, "")
        return None

    def _take(self, event: yaml.Event, place: Place) -> None:
        match event:
            case yaml.DocumentStartEvent():
                if self._root:
                    raise _TooMuch("a second document begins here; a config is one document")
            case yaml.AliasEvent():
                self._refuse(place, f"*{printable(event.anchor or '')}: no aliases; write it out")
                self._add(Broken(place))
            case yaml.ScalarEvent():
                self._refuse_marks(event, place)
                self._add(self._scalar(event, place))
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._refuse_marks(event, place)
                if len(self._open) >= MAX_DEPTH:
                    raise _TooMuch(f"nested deeper than {MAX_DEPTH} levels")
                self._open.append(_Open(place, isinstance(event, yaml.MappingStartEvent)))
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._add(self._closed(self._open.pop()))
            case _:
                pass  # the begin and end of the stream and of the document

    def _add(self, node: Node) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _TooMuch(f"more than {MAX_VALUES} values")
        if self._open:
            self._open[-1].children.append(node)
        else:
            self._root = node

    def _scalar(self, event: yaml.ScalarEvent, place: Place) -> Node:
        # Only an escape ("\0", "\ud800") can bring these past the check of the whole text.
        if _FORBIDDEN.search(event.value):
            words = "holds a NUL or half a surrogate pair, which no text may"
            self._refuse(place, words)
            return Broken(place)
        is_plain = event.style is None
        return Scalar(place, _resolved(event.value) if is_plain else event.value, event.value)

    def _closed(self, ended: _Open) -> Node:
        if not ended.is_mapping:
            return Items(ended.place, tuple(ended.children))
        pairs: dict[str, tuple[Scalar, Node]] = {}
        for key, node in zip(ended.children[::2], ended.children[1::2], strict=True):
            if not isinstance(key, Scalar):
                if not isinstance(key, Broken):
                    self._refuse(key.place, "a key is one word, no list or mapping")
            elif key.text in pairs:
                first = pairs[key.text][0].place
                where = f"; first in line {first.line}" if first.line else ""
                words = f"{quoted(key.text)} is given twice{where}"
                self._refuse(key.place, words)
            else:
                pairs[key.text] = (key, node)
        return Pairs(ended.place, tuple(pairs.values()))

    def _refuse_marks(
        self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, place: Place
    ) -> None:
        if event.anchor is not None:
            self._refuse(place, f"&{printable(event.anchor)}: no anchors; remove it")
        if event.tag is not None:
            self._refuse(place, f"tag {quoted(event.tag)}: no tags; remove it")

    def _refuse(self, place: Place, words: str) -> None:
        """Add a fault that belongs to no key."""
        self._faults.append(Fault(place, "", words))

    def _place(self, mark: _Mark | None) -> Place:
        if not self._head.line or mark is None:
            return self._head
        return Place(mark.line + 1, mark.column + 1, self._head.name)


def _events(text: str) -> Iterator[yaml.Event]:
    # The pure-Python loader: libyaml's recursion lies in C, where a deep nesting ends the process.
    yield from yaml.parse(text, Loader=yaml.SafeLoader)


def _resolved(text: str) -> bool | int | float | str | None:
    """Return what a plain (unquoted) scalar means: YAML 1.1 without dates and base 60."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        try:
            return _integer(text.replace("_", "").lower())
        except ValueError:  # 0x_
            return text
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _integer(text: str) -> int:
    # YAML 1.1 writes octal 0660, YAML 1.2 and Python 0o660; Python's int(…, 0) refuses the former.
    digits = text.lstrip("+-")
    is_old_octal = digits.isdigit() and digits.startswith("0")
    return int(text, 8) if is_old_octal else int(text, 0)
