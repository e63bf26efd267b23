"""What `procd status --json` says; plain values only."""

from __future__ import annotations

import time

from procd.ipc.scoreboard import Cell, Role, Scoreboard
from procd.ipc.words import SlotState
from procd.master.bases import Bases
from procd.master.generation import Last
from procd.master.generations import Generations
from procd.master.ledgers import Ledgers
from procd.master.listeners import Listener
from procd.master.process import Process
from procd.master.processes import Processes
from procd.master.recovery import Recovery
from procd.master.states import DISPATCHING, GOING, SEATED, State
from procd.master.steps import Steps

_STATES = {
    State.FORKING: "booting",
    State.BOOTING: "booting",
    State.READY: "ready",
    State.CALLED: "ready",
    State.SERVING: "ready",
    State.DRAINING: "draining",
    State.KILLED: "draining",
}
ROLES = {
    Role.BASE: "base",
    Role.SPARE: "spare",
    Role.TEMPLATE: "template",
    Role.WORKER: "worker",
    Role.TASK: "task",
    Role.INGRESS: "ingress",
    Role.LEDGER: "ledger",
    Role.GATE: "gate",
    Role.LOGGER: "logger",
}

Json = dict[str, object]


def processes(table: Processes, scoreboard: Scoreboard, now: float) -> list[Json]:
    """Every process of every generation, and the seats that wait for one."""
    found = [_process(process, scoreboard, now) for process in table.table.values()]
    filled = {p.row.seat for p in table.table.values() if p.row.state not in GOING}
    for seat, backoff in table.held.items():
        if seat not in filled and now < backoff.not_before:
            entry: Json = {"role": ROLES[seat.role], "pid": None, "generation": seat.generation}
            if seat.role in SEATED:
                entry["id"] = scoreboard.worker_id(seat.role, seat.number)
            entry |= {
                "state": "backoff",
                "restarts": table.restarts.get((seat.role, seat.number), 0),
            }
            found.append(entry | {"retry_in": round(backoff.not_before - now, 3)})
    order = {"worker": 0, "task": 1}
    return sorted(
        found, key=lambda p: (order.get(str(p["role"]), 2), p.get("id", 0), p["generation"])
    )


def _process(process: Process, scoreboard: Scoreboard, now: float) -> Json:
    row = process.row
    entry: Json = {
        "role": ROLES[row.seat.role],
        "pid": row.pid or None,
        "generation": row.seat.generation,
        "state": _STATES[row.state],
        "restarts": process.restarts,
        "uptime": round(now - row.since, 3),
    }
    if row.seat.role in SEATED:
        entry["id"] = scoreboard.worker_id(row.seat.role, row.seat.number)
        entry["connections"] = scoreboard.get(row.row, Cell.CONNECTIONS)
        entry["requests"] = scoreboard.get(row.row, Cell.REQUESTS)
        entry["bad_messages"] = scoreboard.get(row.row, Cell.BAD_MESSAGES)
        entry["unhandled_messages"] = scoreboard.get(row.row, Cell.UNHANDLED)
    return entry


def tasks(recovery: Recovery, table: Processes, scoreboard: Scoreboard, letters: int) -> Json:
    """Task counters since the master's start; queued and running as they are."""
    queued, running = recovery.arena.count()
    totals = recovery.totals
    rows = [row.row for row in table.rows() if row.seat.role in DISPATCHING]

    def total(cell: Cell) -> int:
        return sum(scoreboard.get(row, cell) for row in rows)

    return {
        "queued": queued,
        "running": running,
        "done": totals.done + total(Cell.DONE),
        "failed": totals.failed + total(Cell.FAILED),
        "retried": totals.retried + total(Cell.RETRIED),
        # Those that the ledger has yet to lay down are where a person will find them.
        "dead": letters + recovery.arena.states().count(SlotState.DEAD),
        "refused": totals.refused + total(Cell.REFUSED),
        "unread": totals.unread + total(Cell.UNREAD),
        "delayed": len(recovery.arena.tokens(SlotState.DELAYED)),
        "expired": totals.expired + total(Cell.EXPIRED),
        "cancelled": totals.cancelled + total(Cell.CANCELLED),
        "slots": recovery.arena.layout.slots,
    }


def _steps(steps: Steps | None) -> Json | None:
    """How long each step of the last reload took, as far as it has come, in seconds."""
    if steps is None:
        return None
    return {name: round(seconds, 4) for name, seconds in steps.seconds().items()}


def _refusal(refusal: Last | None) -> Json | None:
    """The last refusal, also after a reload that was none."""
    if refusal is None:
        return None
    return {"error": refusal.error, "cause": list(refusal.cause)}


def _reload(generations: Generations) -> Json:
    last = generations.last
    return {
        "state": last.state,
        "seconds": None if last.seconds is None else round(last.seconds, 4),
        "error": last.error,
        "cause": list(last.cause),
        "steps": _steps(last.steps),
        "refusal": _refusal(generations.refusal),
    }


def _base(bases: Bases, generations: Generations) -> Json:
    """What a new generation finds imported, and what no fork could share."""
    serving = generations.infos.get(max(generations.reload.serving.values(), default=0))
    return {
        "is_warm": bases.is_warm,
        "preloaded": bases.preloaded,
        "left_out": bases.left_out,
        "unfit": None if serving is None else serving.unfit or None,
    }


def status(  # noqa: PLR0913 - the whole service on one page
    *,
    state: str,
    pid: int,
    began: float,
    generations: Generations,
    listeners: list[Listener],
    table: Processes,
    scoreboard: Scoreboard,
    recovery: Recovery,
    bases: Bases,
    ledgers: Ledgers,
) -> Json:
    """The whole page."""
    now = time.monotonic()
    return {
        "state": state,
        "pid": pid,
        "generation": max(generations.reload.serving.values(), default=0),
        "uptime": round(now - began, 3),
        "config": {
            "path": str(generations.config.path),
            "error": generations.config_error,
            "needs_restart": list(generations.needs_restart),
            "run_dir": str(generations.config.run_dir),
        },
        "listeners": [listener.address for listener in listeners],
        "processes": processes(table, scoreboard, now),
        "tasks": tasks(recovery, table, scoreboard, ledgers.letters),
        "ledger": ledgers.page(),
        "reload": _reload(generations),
        "base": _base(bases, generations),
    }
