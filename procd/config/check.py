"""One key's value, of whatever shape: what the config then holds, or all its faults.

Nothing here compares two keys; procd.config.load does. A list or mapping is checked to its end, so
that all its faults come at once; a scalar has one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from procd.config import address, limits, scalar
from procd.config.fault import Fault, Place, Wrong, named, quoted
from procd.config.scalar import shown
from procd.config.schema import KEYS, NOT_YET, Key, Kind, Listen
from procd.config.source import Broken, Items, Node, Pairs, Scalar

T = TypeVar("T")

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Case:
    """One key being checked."""

    name: str
    key: Key
    base: str
    faults: list[Fault]

    def wrong(self, place: Place, path: str, wrong: Wrong) -> None:
        words = f"{wrong}; allowed: {scalar.allowed(self.key)}"
        self.faults.append(Fault(place, path, words))


def check(name: str, node: Node, base: str, faults: list[Fault]) -> object:
    """Return what the config holds for key *name*; relative paths begin at the folder *base*.

    A wrong value adds to *faults*, and what is returned then means nothing.
    """
    case = Case(name, KEYS[name], base, faults)
    if isinstance(node, Broken):
        return None
    try:
        value = _value(case, node)
    except Wrong as wrong:
        case.wrong(node.place, name, wrong)
        return None
    if name in NOT_YET and value is not None:
        words = f"{NOT_YET[name]} is not in this version of procd yet; leave it at null"
        faults.append(Fault(node.place, name, words))
    return value


def _value(case: Case, node: Node) -> object:
    shape = _SHAPES.get(case.key.kind)
    if shape is not None:
        return shape(case, node)
    if not isinstance(node, Scalar):
        raise Wrong(f"{shown(node)} is not one value")
    return scalar.value(case.key, node, case.base)


def _each(
    case: Case, node: Node, one: Callable[[Case, Scalar], T]
) -> Iterator[tuple[Place, str, T]]:
    """Yield the place, path and value of each good item. One alone may stand without a list."""
    if isinstance(node, Pairs) or (isinstance(node, Scalar) and not isinstance(node.data, str)):
        raise Wrong(f"{shown(node)} is no list")
    for index, item in enumerate(node.items if isinstance(node, Items) else [node]):
        path = f"{case.name}[{index}]" if isinstance(node, Items) else case.name
        if isinstance(item, Broken):
            continue
        try:
            yield item.place, path, one(case, _nonempty(item))
        except Wrong as wrong:
            case.wrong(item.place, path, wrong)


def _nonempty(item: Node) -> Scalar:
    if isinstance(item, Scalar) and isinstance(item.data, str) and item.data:
        return item
    raise Wrong(f"{shown(item)} is no text")


def _globs(case: Case, node: Node) -> tuple[str, ...]:
    return tuple(glob for _, _, glob in _each(case, node, _text))


def _listeners(case: Case, node: Node) -> tuple[Listen, ...]:
    listeners: list[Listen] = []
    seen: dict[tuple[str, ...], str] = {}
    for place, path, listen in _each(case, node, _listen):
        identity = address.identity(listen)
        if identity and seen.setdefault(identity, path) != path:
            words = f"{quoted(listen.text)} is the same as {seen[identity]}"
            case.faults.append(Fault(place, path, words))
        listeners.append(listen)
    return tuple(listeners)


def _listen(case: Case, item: Scalar) -> Listen:
    return address.parse(item.text, case.base)


def _text(_case: Case, item: Scalar) -> str:
    return item.text


def _modules(case: Case, node: Node) -> str | tuple[str, ...]:
    if isinstance(node, Scalar):
        # YAML reads a plain `off` as false.
        text = "off" if node.data is False else node.text
        if text in case.key.words:
            return text
    return tuple(module for _, _, module in _each(case, node, _module))


def _module(_case: Case, item: Scalar) -> str:
    if not all(part.isidentifier() for part in item.text.split(".")):
        raise Wrong(f"{shown(item)} is no module name")
    return item.text


def _environment(case: Case, node: Node) -> dict[str, str]:
    if not isinstance(node, Pairs):
        raise Wrong(f"{shown(node)} is no mapping")
    environment: dict[str, str] = {}
    for name, item in node.pairs:
        path = f"{case.name}.{named(name.text)}"
        if not _VARIABLE.fullmatch(name.text):
            case.wrong(name.place, path, Wrong(f"{quoted(name.text)} is no name of a variable"))
        elif isinstance(item, Scalar) and item.data is not None:
            # As it was written: 0660, yes and 1e3 are texts to the process that reads them.
            environment[name.text] = item.text
        elif isinstance(item, Scalar):
            case.wrong(item.place, path, Wrong("null is no text, '' is the empty one"))
        elif not isinstance(item, Broken):
            case.wrong(item.place, path, Wrong(f"{shown(item)} is no text"))
    return environment


def _rlimits(case: Case, node: Node) -> dict[str, int | None]:
    if not isinstance(node, Pairs):
        raise Wrong(f"{shown(node)} is no mapping")
    found: dict[str, int | None] = {}
    for name, item in node.pairs:
        path = f"{case.name}.{named(name.text)}"
        if name.text not in limits.RESOURCES:
            case.wrong(name.place, path, Wrong(f"{quoted(name.text)} is no limit"))
        elif isinstance(item, Scalar):
            try:
                found[name.text] = scalar.limit(item)
            except Wrong as wrong:
                case.wrong(item.place, path, wrong)
        elif not isinstance(item, Broken):
            case.wrong(item.place, path, Wrong(f"{shown(item)} is no size"))
    return found


def _cpus(case: Case, node: Node) -> str | tuple[str, ...] | None:
    if isinstance(node, Scalar) and (node.data is None or node.text in case.key.words):
        return None if node.data is None else node.text
    if isinstance(node, Pairs) or (isinstance(node, Items) and not node.items):
        raise Wrong(f"{shown(node)} without a set of CPUs")
    found = []
    for index, item in enumerate(node.items if isinstance(node, Items) else [node]):
        if isinstance(item, Broken):
            continue
        try:
            found.append(_cpu_set(item))
        except Wrong as wrong:
            case.wrong(item.place, f"{case.name}[{index}]", wrong)
    return tuple(found)


def _cpu_set(item: Node) -> str:
    if not isinstance(item, Scalar) or isinstance(item.data, bool | float | None):
        raise Wrong(f"{shown(item)} is no set of CPUs")
    limits.cpus(item.text)
    return item.text


_SHAPES: dict[Kind, Callable[[Case, Node], object]] = {
    Kind.LISTEN: _listeners,
    Kind.ENV: _environment,
    Kind.GLOBS: _globs,
    Kind.MODULES: _modules,
    Kind.RLIMITS: _rlimits,
    Kind.CPUS: _cpus,
}
