"""What is wrong with a config, where it stands, and how a person reads it.

A fault is one line, always: nothing from a file, an option or the environment reaches a message
without passing through printable(), so that no line break, terminal escape or lone surrogate of a
stranger's can hide in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_KEY = re.compile(r"[\w.-]{1,80}", re.ASCII)
LONGEST_SHOWN = 80  # characters of a value that a message repeats
LONGEST_NAMED = 200  # the same of a sentence of another library's


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: FILE:LINE:COL, or the option or variable (line 0) that gave it."""

    line: int  # from 1; 0 = not in a file
    column: int  # from 1, in characters
    name: str
    key: str = ""  # the key that an option or a variable sets

    def __str__(self) -> str:
        return f"{self.name}:{self.line}:{self.column}" if self.line else self.name


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong: the place, the path of the key (`listen[0]`), and the words."""

    place: Place
    path: str
    words: str

    def __str__(self) -> str:
        # `-s worker_num` has named the key already; a file's place has not.
        path = "" if self.path in ("", self.place.key) else f"{self.path}: "
        return f"{self.place}: {path}{self.words}"


class Wrong(Exception):
    """A value cannot be taken; the text is what a person should read."""


def in_order(faults: list[Fault]) -> list[Fault]:
    """Sort by line, as an editor shows them; then variables and options, as they were found."""
    return sorted(faults, key=lambda f: (not f.place.line, f.place.line, f.place.column))


def printable(text: str, longest: int = LONGEST_NAMED) -> str:
    """Return *text* on one line, unprintable characters escaped, its end cut off if it is long."""
    clipped = text if len(text) <= longest else text[:longest] + "..."
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in clipped)


def named(key: str) -> str:
    """Return a key that a stranger chose: as it is where it looks like one, else in quotes."""
    return key if _KEY.fullmatch(key) else quoted(key)


def quoted(text: str) -> str:
    return f'"{printable(text, LONGEST_SHOWN)}"'
