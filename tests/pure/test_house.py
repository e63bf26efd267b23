"""The house rules that a reviewer should not have to check by eye.

A *room* is a module of procd by its dotted name below the house: "ipc.arena", and "" for the house
itself. A package's own name is the room of its __init__; where that imports nothing it is no room.
"""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
HOUSE = REPOSITORY / "procd"

# The floors, lowest first. A room imports from floors below its own, or from neighbours of its own
# package on the same floor, never in a circle. "master.*" is every room of master but those that
# have a line themselves: the longest match decides. A room may stand here before it exists.
FLOORS: tuple[tuple[str, ...], ...] = (
    (
        *("errors", "logger.entry", "logger.formats", "logger.target"),
        *("logger.budget", "logger.joiner", "logger.source", "logger.writer"),
    ),
    ("logs",),
    ("config.*", "linux.*", "ipc.words", "ipc.wire", "ipc.foreign.*"),
    (
        *("ipc.layout", "ipc.terms", "ipc.spool", "ipc.arenafile", "ipc.arena", "ipc.scoreboard"),
        *("ipc.arenareader", "ipc.arenaview"),
        *("ipc.doorbell", "ipc.inbox", "ipc.hints", "ipc.channel", "ipc", "ipc.frames"),
        *("ipc.mending", "ipc.steadyfile", "ipc.keys", "ipc.keytable", "ipc.others"),
        *("ipc.patience", "ipc.queue", "ipc.swooletask", "ipc.tally"),
    ),
    ("ledger.*",),  # the file; the process is further up
    ("tasks.*",),
    ("app",),
    ("spawn.*",),
    ("tasks.safeguards", "tasks.outside"),
    ("tasks.host", "tasks.inheriting", "ingress.*", "gate.*", "logger.*"),
    ("ledger.slots", "ledger.livedesk", "ledger.way", "ledger.ledger"),
    ("worker.acceptor", "worker.connection", "taskworker.runner"),
    ("worker.movable", "worker.handover", "worker.mover", "worker.drain"),
    ("worker.worker", "taskworker.taskworker"),
    ("spawn.template", "spawn.forkserver"),
    ("spawn.base",),
    ("master.lifecycle", "master.reload", "master.backoff", "master.states"),
    ("service.record", "service.sdnotify"),
    ("master.*",),
    ("service.*",),
    ("doctor.*", "client.*"),
    ("cli.*",),
    ("__main__", ""),
)

# An outside module that not everybody may import, and the rooms that may.
OWNERS: dict[str, tuple[str, ...]] = {
    "asyncio": (
        *("worker.*", "taskworker.*", "tasks.*", "spawn.template", "ipc.patience"),
        "client.promise",
    ),
    "uvloop": ("spawn.template",),
    "click": ("cli.*",),
    "rich": ("cli.*",),
    "ctypes": ("linux.*",),
    "daemon": ("service.daemon",),
    "inotify_simple": ("master.watcher",),
    "msgpack": ("ipc.wire",),
    "sqlite3": ("ledger.store", "ledger.schema", "ledger.faults"),
    "sysv_ipc": ("linux.sysv",),
    "yaml": ("config.source",),
    # nobody: no thread lives in a process that forks, and foreign bytes are data
    "concurrent": (),
    "multiprocessing": (),
    "pickle": (),
    "shelve": (),
    # The ingress never forks, and a queue has no descriptor to wait for; nor does the logger, and
    # a disk has none either. The client lives in somebody else's program.
    "threading": ("ingress.sentry", "logger.writer", "client.*"),
}

# The only rooms that may call os.fork: what stands around a fork is said once.
FORKERS = ("spawn.child",)

# What a reader must know to trust the rest: his hour.
CORE = (
    *("ipc.words", "ipc.layout", "ipc.arenaview", "ipc.arena", "ipc.arenareader", "ipc.arenafile"),
    "tasks.dispatcher",
    *("master.states", "master.lifecycle", "master.reload", "master.loop"),
    # Without moving connections it would promise the same.
    *("spawn.template", "worker.worker", "worker.acceptor", "worker.connection", "worker.drain"),
    "taskworker.*",
)
MAX_CORE_LINES = 3_150  # about 2,500, and the ends of spool, ingress, ledger, terms, seals, keys
MAX_FILE_LINES = 320  # about 300
MAX_FUNCTION_LINES = 40


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def room_of(path: Path) -> str:
    name = path.relative_to(HOUSE).with_suffix("").as_posix().replace("/", ".")
    return name.removesuffix("__init__").removesuffix(".")


def imported(path: Path) -> set[str]:
    """Return the dotted name of every module that the file imports, at its top or further in."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names |= {submodule_or(module, alias.name) for alias in node.names}
    return names


def submodule_or(module: str, name: str) -> str:
    """Return what `from module import name` loads: a room of that name, else the module."""
    folder = REPOSITORY.joinpath(*module.split("."))
    is_room = (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists()
    return f"{module}.{name}" if is_room else module


def rooms_imported(path: Path) -> set[str]:
    names = {name for name in imported(path) if name.partition(".")[0] == "procd"}
    return {name.removeprefix("procd").removeprefix(".") for name in names}


def longest_match(room: str, patterns: tuple[str, ...]) -> str | None:
    """Return the pattern that fits *room* best: its own name, else the longest "package.*"."""
    fitting = [p for p in patterns if room == p or (p[-2:] == ".*" and room.startswith(p[:-1]))]
    return max(fitting, key=lambda pattern: (pattern == room, len(pattern)), default=None)


FLOOR_OF_PATTERN = {pattern: floor for floor, names in enumerate(FLOORS) for pattern in names}


def floor_of(room: str) -> int:
    pattern = longest_match(room, tuple(FLOOR_OF_PATTERN))
    assert pattern is not None, f"room {room!r} is on no floor: give it one in FLOORS of {__file__}"
    return FLOOR_OF_PATTERN[pattern]


def is_neighbour(room: str, other: str) -> bool:
    """Say whether two rooms of one floor may know each other: they share a package."""
    package = room.partition(".")[0]
    return package == other.partition(".")[0] and package in {p.name for p in HOUSE.iterdir()}


ROOMS = {
    room_of(path): path
    for path in sorted(HOUSE.rglob("*.py"))
    if path.name != "__init__.py" or imported(path)
}
every_room = pytest.mark.parametrize("room", ROOMS, ids=lambda room: room or "procd")


@every_room
def test_room_imports_only_from_floors_below(room: str) -> None:
    floor = floor_of(room)

    too_high = {
        other
        for other in rooms_imported(ROOMS[room])
        if floor_of(other) > floor or (floor_of(other) == floor and not is_neighbour(room, other))
    }

    assert not too_high, f"{room} (floor {floor}) imports {sorted(too_high)}"


def test_no_room_imports_itself_in_a_circle() -> None:
    graph = {room: rooms_imported(path) for room, path in ROOMS.items()}

    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail("imports in a circle: " + " <- ".join(error.args[1]))


@every_room
def test_room_names_what_it_imports_in_full(room: str) -> None:
    names = imported(ROOMS[room])

    assert not {n for n in names if n.startswith(".")}, f"{room}: a relative import"
    assert "procd" not in names, f"{room}: name the room, not the house"


@every_room
def test_outside_module_is_imported_by_its_owners_only(room: str) -> None:
    roots = {name.partition(".")[0] for name in imported(ROOMS[room])}

    strange = {m for m in roots & OWNERS.keys() if longest_match(room, OWNERS[m]) is None}

    assert not strange, f"{room} imports {sorted(strange)}, see OWNERS of {__file__}"


@every_room
def test_only_one_room_forks(room: str) -> None:
    forks = [
        node.lineno
        for node in ast.walk(tree_of(ROOMS[room]))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "os.fork"
    ]

    assert not forks or room in FORKERS, f"{room} forks in line {forks[0]}, see FORKERS"


def python_files() -> list[Path]:
    folders = ("procd", "tests", "bench", "examples")
    return sorted(path for name in folders for path in (REPOSITORY / name).rglob("*.py"))


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_file_is_read_in_one_sitting(path: Path) -> None:
    lines = len(path.read_text().splitlines())

    assert lines <= MAX_FILE_LINES


@every_room
def test_function_fits_on_a_screen(room: str) -> None:
    too_long = {
        f"{node.name}, line {node.lineno}": length
        for node in ast.walk(tree_of(ROOMS[room]))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    }

    assert not too_long


def test_core_is_read_in_an_hour() -> None:
    sizes = {
        room: len(path.read_text().splitlines())
        for room, path in ROOMS.items()
        if longest_match(room, CORE) is not None
    }

    assert sum(sizes.values()) <= MAX_CORE_LINES, sizes
