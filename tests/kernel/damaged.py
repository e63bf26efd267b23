"""An arena with tasks in every state, and a start of a service on what has become of it."""

from __future__ import annotations

import itertools
import tempfile
from collections import deque
from contextlib import suppress
from functools import cache
from math import inf
from pathlib import Path
from typing import NamedTuple

from procd.ipc import layout as lay
from procd.ipc import terms, wire
from procd.ipc.arenafile import ArenaFile
from procd.ipc.layout import Damaged, Layout
from procd.ipc.scoreboard import TAKING, Cell, Role
from procd.ledger.livedesk import LiveDesk
from procd.ledger.slots import LedgerArena
from procd.ledger.store import Store, open_store
from procd.master import inheritance
from procd.master.cancelling import Cancelling
from procd.tasks import failure
from procd.tasks.options import Options
from tests.kernel.arenas import EPOCH, Service, Someone, claim, serving

SHAPE = Layout(64, 256, 4, EPOCH)  # few slots, so that damage hits tasks; more than one a chunk
FAILURE = failure.pack("ValueError: no", "line 1", 200)


class Accepted(NamedTuple):
    """What is to be claimed under one token, if anything is."""

    meta: tuple[object, ...]  # up to its seal
    terms: terms.Terms
    data: bytes


# ---------------------------------------------------------------- an arena with all there can be


def fill(service: Service) -> None:
    """Leave tasks in every state, large ones among them, as a killed master does."""
    worker, tasker = service.someone(Role.WORKER), service.someone(Role.TASK)
    many = Options(retries=3, timeout=5.0, ttl=1e6, priority=2)
    sizes = itertools.cycle([10, 10, 200, 3000])

    def send(options: Options = many, seat: int = -1, flags: int = 0) -> int:
        data = wire.pack(["app.add", ["x" * next(sizes)], {}])
        flags |= lay.NAMED
        return worker.dispatcher.dispatch(data, seat=seat, flags=flags, options=options).id

    over = []
    for _ in range(8):
        send(Options(priority=next(sizes) % 9 + 1))
        over.append(send())
        send()
    for options in (Options(delay=1e6), Options(at=inf), Options(delay=0.001)):
        send(options)
        send(options, flags=lay.DURABLE)
    for seat in (0, 1, 0):
        send(seat=seat)
    for is_dead in (True, False, True, False):
        token = send()
        claim(tasker, token)
        tasker.arena.finish(token, FAILURE, failed=True, is_dead=is_dead)
    for _ in range(4):
        claim(tasker, send())
    for token in over:  # their slots are free, and stand as they were
        claim(tasker, token)
        tasker.arena.finish(token, wire.pack("r" * next(sizes)), failed=False)
        worker.dispatcher.take_hint(token)


@cache
def filled() -> tuple[dict[str, bytes], dict[int, Accepted]]:
    """Files by their names, and the tasks in them that may be claimed."""
    with tempfile.TemporaryDirectory(prefix="procd-") as name:
        folder = Path(name)
        ArenaFile.create(folder / "arena", SHAPE).close()
        with serving(folder) as service:
            fill(service)
            reader = LedgerArena(service.file.fd, SHAPE, service.file.spool)
            found = {}
            for slot in service.file.in_use():
                meta, data = reader._task(slot.token)
                found[slot.token] = Accepted(meta[:9], reader.terms(slot.token), data)
        files = [folder / "arena", *(folder / "spool").iterdir()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}, found


@cache
def store() -> Store:
    """One ledger for all cases: it knows each letter by its id."""
    folder = tempfile.TemporaryDirectory(prefix="procd-")
    _folders.append(folder)
    return open_store(Path(folder.name) / "ledger.sqlite")


_folders: list[tempfile.TemporaryDirectory[str]] = []


def spread(folder: Path, arena: bytes | None = None) -> None:
    """Put the filled arena there, or another one in its place."""
    files, _ = filled()
    (folder / "spool").mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    if arena is not None:
        (folder / "arena").write_bytes(arena)


# ---------------------------------------------------------------- what is done with it


def adopt_and_run(folder: Path) -> list[int]:
    """Start a service there, let it run all that it can, and end it; what was claimed."""
    was = (folder / "arena").read_bytes()
    opened = inheritance.open_arena(folder / "arena", folder / "ids", 64, 256, EPOCH)
    opened.close()
    for aside in folder.glob("arena.damaged-*"):
        assert aside.read_bytes() == was
    with serving(folder) as service:
        service.recovery.adopt(0.0)
        ledger = LedgerArena(service.file.fd, service.file.layout, service.file.spool)
        look_as_the_ledger(ledger)
        claimed = run_all(service, ledger)
        cancel_all(service)
        service.stop()
    return claimed


def look_as_the_ledger(ledger: LedgerArena) -> None:
    waiting: deque[int] = deque()
    desk = LiveDesk(store(), ledger, waiting, waiting.extend, ledger.cancel)
    for state in (None, "queued", "delayed", "running", "dead"):
        assert desk.answer({"verb": "list", "state": state})["ok"]
    for token, _, _, meta in list(ledger.live()):
        assert desk.answer({"verb": "show", "id": (meta.task_id or token) % 2**63})["ok"]


def work_as_the_ledger(ledger: LedgerArena) -> None:
    """What Ledger._work does, without its process."""
    found = ledger.look()
    entries = []
    for token in found.held:
        with suppress(Damaged):
            entries.append(ledger.entry(token))
    ended = [ledger.ending(token) for token in found.over]
    letters = [ledger.letter(token) for token in found.dead]
    store().commit(accepted=entries, ended=ended, buried=letters)
    for token in found.held:
        ledger.admit(token)
    for token in found.over:
        ledger.settle(token)
    for token in found.dead:
        ledger.bury(token)


def run_all(service: Service, ledger: LedgerArena) -> list[int]:
    """Claim whatever can be, by the tokens that are there and by any that a slot tells of."""
    _, accepted = filled()
    tasker, recovery, claimed = service.someone(Role.TASK), service.recovery, []
    for turn in range(3):
        work_as_the_ledger(ledger)
        recovery.delays.scan()
        recovery.tick(inf)
        tokens = [*service.queued(), *tokens_of_all_slots(service)]
        for token in tokens:
            claimed += run(tasker, token, accepted)
        tasker.cells[Cell.CURRENT] = TAKING if turn else tokens[0]
        service.bury(tasker)
        tasker = service.someone(Role.TASK)
    return claimed


def tokens_of_all_slots(service: Service) -> list[int]:
    return [service.file.slot(number).token for number in range(service.file.layout.slots)]


def run(tasker: Someone, token: int, accepted: dict[int, Accepted]) -> list[int]:
    """Claim one; every third process dies of what it has claimed."""
    tasker.cells[Cell.CURRENT] = token
    try:
        got = tasker.arena.claim(token)
    except Damaged:
        tasker.arena.finish(token, FAILURE, failed=True, is_dead=True)
        return []
    if got is None:
        return []
    assert token in accepted, "no task of this name was to be run"
    _, meta, data = got
    assert (meta[:9], data) == (accepted[token].meta, accepted[token].data)
    if meta.flags & terms.TERMS:
        had, has = accepted[token].terms, tasker.arena.terms(token)
        assert has[3:9] == had[3:9]
    if token % 3:
        tasker.arena.finish(token, wire.pack(1), failed=False)
    return [token]


def cancel_all(service: Service) -> None:
    cancelling = Cancelling(service.file, service.recovery.endings, service.scoreboard, {})
    for token in tokens_of_all_slots(service):
        cancelling.cancel(token, 0.0)
    cancelling.tick(inf)


def survives(arena: bytes | None, *, files: tuple[tuple[str, bytes], ...] = ()) -> list[int]:
    """Let a service start with that; what it ran."""
    with tempfile.TemporaryDirectory(prefix="procd-") as name:
        folder = Path(name)
        spread(folder, arena)
        for path, data in files:
            (folder / path).write_bytes(data)
        return adopt_and_run(folder)


def close() -> None:
    """Give the ledger back."""
    if _folders:
        store().close()
        store.cache_clear()  # tests of this file may run again after those of another
        _folders.pop().cleanup()
