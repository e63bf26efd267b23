"""One scalar to one value of the config, and in words what each kind of key takes.

Every function here returns the value or raises Wrong. The user and group database is the only thing
outside that is asked; files are not looked at.
"""

from __future__ import annotations

import grp
import math
import os
import pwd
import re
from collections.abc import Callable
from pathlib import Path

from procd.config import address, limits
from procd.config.fault import Wrong, quoted
from procd.config.schema import YEAR, G, K, Key, Kind, M
from procd.config.source import Items, Node, Pairs, Scalar

MAX_PATH = 4095  # bytes: PATH_MAX is 4096 with its closing NUL
_SUFFIXES = {"": 1, "K": K, "M": M, "G": G}
_SIZE = re.compile(r"([0-9]{1,20})([KMG]?)", re.ASCII)
_MODE = re.compile(r"0o?([0-7]{3})", re.ASCII)

_IN_WORDS = {
    Kind.APP: "module:attribute, path/to/file.py:attribute",
    Kind.PATH: "a path",
    Kind.LISTEN: address.ALLOWED,
    Kind.ENV: "a mapping as {NAME: text}",
    Kind.GLOBS: "a list of patterns as [templates/**/*.html]",
    Kind.MODULES: "a list of module names",
    Kind.MODE: "octal digits as 0660",
    Kind.FLAG: "true, false",
    Kind.USER: "the name or number of a user",
    Kind.GROUP: "the name or number of a group",
    Kind.RLIMITS: (
        f"a mapping as {{nofile: 65536, as: 2G, core: {limits.UNLIMITED}}}, with the names "
        + " ".join(limits.RESOURCES)
    ),
    Kind.CPUS: "a list of sets of CPUs as [0, 1] or [0-3]",
}


def allowed(key: Key) -> str:
    """Return in words what *key* takes."""
    match key.kind:
        case Kind.COUNT:
            kind = [f"a whole number from {key.low} to {key.high}"]
        case Kind.SECONDS:
            kind = [f"seconds above 0, at most {YEAR}"]
        case Kind.BYTES:
            step = f" in steps of {key.step}" if key.step > 1 else ""
            kind = [f"bytes from {_size_in_words(key.low)} to {_size_in_words(key.high)}{step}"]
            kind[0] += ", as 65536 or 64K"
        case Kind.CHOICE:
            kind = []
        case _:
            kind = [_IN_WORDS[key.kind]]
    return ", ".join([*kind, *key.words, *(["null"] if key.is_nullable else [])])


def shown(node: Node) -> str:
    """Return *node* as a message should repeat it."""
    match node:
        case Scalar(data=None):
            return "null"
        case Scalar(data=str()):
            return quoted(node.text)
        case Scalar():
            return node.text
        case Items():
            return "a list"
        case Pairs():
            return "a mapping"
    return "this"


def value(key: Key, node: Scalar, base: str) -> object:
    """Return what *node* means to *key*; relative paths begin at *base*. Raises Wrong."""
    if node.data is None and key.is_nullable:
        return None
    if node.text in key.words:
        return node.text
    return _KINDS[key.kind](key, node, base)


def _app(_key: Key, node: Scalar, _base: str) -> str:
    target, _, attribute = node.text.rpartition(":")
    is_file = target.endswith(".py") and not target.endswith("/.py") and target != ".py"
    if not (is_file or _is_dotted(target)) or not _is_dotted(attribute):
        raise Wrong(f"{shown(node)} names no app")
    return node.text


def _is_dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _path(_key: Key, node: Scalar, base: str) -> Path:
    if not isinstance(node.data, str) or not node.data:
        raise Wrong(f"{shown(node)} is no path")
    if node.data.startswith("~"):
        raise Wrong(f"{shown(node)}: ~ is not expanded; write the whole path")
    # normpath and join, never realpath: a symlinked release must stay a symlink.
    path = os.path.normpath(os.path.join(base, node.data))
    if len(os.fsencode(path)) > MAX_PATH:
        raise Wrong(f"{shown(node)} is longer than {MAX_PATH} bytes")
    return Path(path)


def _count(key: Key, node: Scalar, _base: str) -> int:
    if isinstance(node.data, bool) or not isinstance(node.data, int):
        raise Wrong(f"{shown(node)} is no whole number")
    return _in_range(key, node, node.data)


def _seconds(_key: Key, node: Scalar, _base: str) -> float:
    if isinstance(node.data, bool) or not isinstance(node.data, int | float):
        raise Wrong(f"{shown(node)} is no number")
    # False for nan too; and before float(), which an int of 40 digits may overflow to nonsense.
    if not 0 < node.data <= YEAR:
        raise Wrong(f"{shown(node)} is out of range")
    seconds = float(node.data)
    if not math.isfinite(seconds):
        raise Wrong(f"{shown(node)} is no number")
    return seconds


def _bytes(key: Key, node: Scalar, _base: str) -> int:
    if isinstance(node.data, int) and not isinstance(node.data, bool):
        return _in_range(key, node, node.data)
    found = _SIZE.fullmatch(node.text) if isinstance(node.data, str) else None
    if not found:
        raise Wrong(f"{shown(node)} is no size")
    return _in_range(key, node, int(found[1]) * _SUFFIXES[found[2]])


def limit(node: Scalar) -> int | None:
    """Return a limit of setrlimit(2), None = unlimited; raises Wrong."""
    if node.text == limits.UNLIMITED:
        return None
    return _bytes(_LIMIT, node, "")


def _in_range(key: Key, node: Scalar, number: int) -> int:
    if not key.low <= number <= key.high:
        raise Wrong(f"{shown(node)} is out of range")
    if number % key.step:
        raise Wrong(f"{shown(node)} is no multiple of {key.step}")
    return number


def _size_in_words(size: int) -> str:
    for suffix in "GMK":
        if size % _SUFFIXES[suffix] == 0:
            return f"{size // _SUFFIXES[suffix]}{suffix}"
    return str(size)


def _mode(_key: Key, node: Scalar, _base: str) -> int:
    # The text, not the number: YAML reads 660 as six hundred and sixty.
    found = _MODE.fullmatch(node.text)
    if not found:
        raise Wrong(f"{shown(node)} is no mode")
    return int(found[1], 8)


def _flag(_key: Key, node: Scalar, _base: str) -> bool:
    if not isinstance(node.data, bool):
        raise Wrong(f"{shown(node)} is neither true nor false")
    return node.data


def _choice(_key: Key, node: Scalar, _base: str) -> str:
    raise Wrong(f"{shown(node)} is not known")


def _user(_key: Key, node: Scalar, _base: str) -> str:
    return _account(node, "user", pwd.getpwnam)


def _group(_key: Key, node: Scalar, _base: str) -> str:
    return _account(node, "group", grp.getgrnam)


def _account(node: Scalar, what: str, find: Callable[[str], object]) -> str:
    if isinstance(node.data, bool | float) or not node.text:
        raise Wrong(f"{shown(node)} is no {what}")
    if _SIZE.fullmatch(node.text) and node.text.isdigit():
        # A number needs no entry in the database: containers often have none.
        if int(node.text) >= 2**32 - 1:
            raise Wrong(f"{shown(node)} is out of range")
        return node.text
    try:
        find(node.text)
    except KeyError:
        raise Wrong(f"this system knows no {what} {shown(node)}") from None
    return node.text


_LIMIT = Key(Kind.BYTES, None, 0, 2**62)

_KINDS: dict[Kind, Callable[[Key, Scalar, str], object]] = {
    Kind.APP: _app,
    Kind.PATH: _path,
    Kind.COUNT: _count,
    Kind.SECONDS: _seconds,
    Kind.BYTES: _bytes,
    Kind.MODE: _mode,
    Kind.FLAG: _flag,
    Kind.CHOICE: _choice,
    Kind.USER: _user,
    Kind.GROUP: _group,
}
