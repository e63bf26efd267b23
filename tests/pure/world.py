"""A service without processes: rows, a clock and what the master does with plan()'s actions."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from procd.ipc.scoreboard import Role
from procd.master.backoff import Backoff
from procd.master.lifecycle import (
    Action,
    Call,
    Fork,
    Hurry,
    Kill,
    Stop,
    Want,
    draining_generations,
    plan,
)
from procd.master.reload import Counts, Reload, Verdict
from procd.master.states import GOING, SEATED, UP, Event, Row, Seat, State

BASE = Seat(Role.BASE, 0, 0)
BOTH = (Role.WORKER, Role.TASK)
BOOT, WAIT = 30.0, 30.0  # boot_timeout, max_wait_time


def row(number: int, seat: Seat, state: State, deadline: float = inf, **more: bool) -> Row:
    return Row(number, number, seat, state, 0.0, deadline, pid=number, **more)


class World:
    """Carries out actions as the master does; the test is the kernel and the app."""

    def __init__(self, worker: int = 2, task: int = 1, max_draining: int = 3) -> None:
        self.rows: dict[int, Row] = {}
        self.held: dict[Seat, Backoff] = {}
        self.counts = Counts(worker, task)
        self.max_draining = max_draining
        self.reload = Reload()
        self.now = 1000.0
        self.done: list[tuple[Action, Row | None]] = []
        self.refused: list[int] = []
        self._last = 0

    # The master

    def want(self) -> Want:
        return self.reload.want(self.counts, self.counts, self.max_draining)

    def begin(self, roles: tuple[Role, ...] = BOTH) -> None:
        self.reload = self.reload.begin(roles, self.now, BOOT)
        self.settle()

    def settle(self) -> None:
        """Act until nothing is left to do; endless action is an error."""
        actions: list[Action] = []
        for _ in range(64):
            self._judge()
            actions = plan(self.rows.values(), self.want(), self.held, self.now)
            if not actions:
                return
            for action in actions:
                self._do(action)
        raise AssertionError(f"plan() has no end: {actions}")

    def _judge(self) -> None:
        room = len(draining_generations(self.rows.values(), self.want())) < self.max_draining
        match self.reload.judge(self.rows.values(), self.counts, self.now, room=room):
            case Verdict.MAKE_ROOM:
                self.reload = self.reload.make_room()
            case Verdict.SWITCH:
                self.reload = self.reload.switch(self.now)
            case Verdict.FINISH:
                self.reload = self.reload.finish()
                self.held = {s: b for s, b in self.held.items() if s.role is Role.BASE}
            case Verdict.REFUSE:
                self.refused.append(self.reload.generation)
                self.reload = self.reload.refuse()

    def _do(self, action: Action) -> None:
        old = None if isinstance(action, Fork) else self.rows[action.row]
        self.done.append((action, old))
        match action:
            case Fork(seat):
                self._last += 1
                self.rows[self._last] = Row(
                    *(self._last, self._last, seat, State.FORKING, self.now, self.now + BOOT)
                )
            case Call(number):
                self.step(number, Event.CALL)
            case Stop(number):
                self.step(number, Event.STOP, self.now + WAIT)
            case Hurry(number):
                self.rows[number] = replace(self.rows[number], deadline=self.now)
            case Kill(number):
                self.step(number, Event.KILL)

    def step(self, number: int, event: Event, deadline: float = inf) -> None:
        self.rows[number] = self.rows[number].step(event, deadline)

    # The kernel and the app

    def go_on(self, number: int) -> None:
        """Let a process do the next thing that it would do by itself."""
        match self.rows[number].state:
            case State.FORKING:
                self.rows[number] = self.rows[number].step(Event.FORKED)
            case State.BOOTING:
                self.step(number, Event.BECAME_READY)
            case State.CALLED:
                self.step(number, Event.SERVES)
            case State.DRAINING | State.KILLED:
                self.die(number)
            case State.READY | State.SERVING:
                pass
        self.settle()

    def die(self, number: int) -> None:
        dead = self.rows.pop(number)
        expected = dead.state in GOING
        if dead.state is not State.KILLED and dead.seat.role is not Role.BASE:
            self.reload = self.reload.fail(dead.seat.generation, f"{dead.seat} died")
        wanted = dead.seat.generation in self.want().generations
        if not expected or (dead.state is State.KILLED and wanted):
            held = self.held.get(dead.seat, Backoff())
            self.held[dead.seat] = held.after_death(self.now - dead.since, self.now)
        self.settle()

    def retire(self, number: int) -> None:
        self.rows[number] = replace(self.rows[number], retires=True)
        self.settle()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    def calm_down(self) -> None:
        """Let everything happen that is under way, without any further fault."""
        for _ in range(200):
            before = dict(self.rows)
            for number in list(self.rows):
                if number in self.rows:
                    self.go_on(number)
            self.pass_time(2.0)
            if before == self.rows:
                return
        raise AssertionError("it never comes to rest")

    # Looking

    def standing(self) -> dict[Seat, State]:
        return {each.seat: each.state for each in self.rows.values()}

    def of(self, seat: Seat) -> list[Row]:
        return [each for each in self.rows.values() if each.seat == seat]

    def serving(self, generation: int) -> list[Row]:
        return [
            each
            for each in self.rows.values()
            if each.seat.role in SEATED and each.seat.generation == generation and each.state in UP
        ]

    def actions(self) -> list[Action]:
        """What was done since the last call."""
        done, self.done = self.done, []
        return [action for action, _ in done]
