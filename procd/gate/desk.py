"""The gate's desk: what programs outside ask becomes tasks, and results go back to who asked.

Rules of this room:
- A program is told ACCEPTED when its task's slot is written, and not before; of a durable one
  when the ledger has it on its disk.
- A result stays in its slot until its program has room for it: one that reads slowly costs no
  memory here, and one that does not read at all is left after a while.
- A program that goes leaves its tasks to run. Their results are counted as unread.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from math import inf

from procd import logs
from procd.errors import ProcdError, TaskRejected
from procd.gate.asks import Asks, options_of
from procd.gate.budget import Budget, seconds_for
from procd.gate.session import CHUNK, Gone, Session, turn_away
from procd.ipc import frames, layout, wire
from procd.ipc.frames import Frame, Kind
from procd.ipc.scoreboard import Cell
from procd.tasks.dispatcher import Dispatcher
from procd.tasks.following import FollowedRef
from procd.tasks.outside import Outside
from procd.tasks.ref import TaskRef

MAX_SESSIONS = 256
_FLAGS = {Kind.DATA: 0, Kind.NAMED: layout.NAMED}
_LOST = "the service ends before it is done; unless tasks are discarded, it runs at the next start"


class Results(Dispatcher):
    """A dispatcher that asks before it takes a result in, and passes it on as it is packed."""

    desk: Desk

    def take_hint(self, token: int) -> bool:
        self._looked(token)
        self.desk.hinted(token)
        return False

    def take_in(self, token: int) -> None:
        super().take_hint(token)

    def _deliver(self, ref: TaskRef, packed: bytes, failed: bool) -> None:  # noqa: FBT001 - as there
        is_refused = ref.acceptance is not None and ref.acceptance.error is not None
        if not is_refused and not self.desk.told(ref.id, packed, failed=failed):
            self.cells[Cell.UNREAD] += 1
            if failed:
                super()._deliver(ref, packed, failed=failed)  # for the log: nobody awaits it
        ref.is_done = True  # the ledger may have to note that before the slot is free

    def _deliver_followed(self, ref: TaskRef, packed: bytes, failed: bool) -> None:  # noqa: FBT001
        self.desk.told(ref.id, packed, failed=failed)
        super()._deliver_followed(ref, packed, failed=failed)


class Desk:
    """*watch* is called with a session whenever wanted() may have changed, *forget* at its end."""

    def __init__(
        self,
        outside: Outside,
        max_bytes: int,
        *,
        want_retry: Callable[[], None],
        tell_master: Callable[[str, dict[str, object]], object],
        later: Callable[[float, Callable[[], None]], None],
        watch: Callable[[Session], None],
        forget: Callable[[Session], None],
    ) -> None:
        self.sessions: set[Session] = set()
        self.is_closed = False  # takes no more tasks
        self._arena = outside.shared.arena
        self._watch, self._forget = watch, forget
        self._asks = Asks()
        self._in: Budget[Session] = Budget(max_bytes)
        self._out: Budget[Session] = Budget(max_bytes)
        self._max_bytes = max_bytes
        self._arena.spool.max_bytes = max_bytes
        self.results = Results(
            *(outside.shared, outside.me, outside.cells),
            on_result=lambda *_: None,
            want_retry=want_retry,
            tell_master=tell_master,
            later=later,
        )
        self.results.desk = self

    # Programs

    def welcome(self, sock: socket.socket) -> None:
        """A program has connected."""
        if len(self.sessions) >= MAX_SESSIONS:
            logs.warning("gate refused", connected=len(self.sessions))
            turn_away(sock, f"{MAX_SESSIONS} programs are connected to this service: no more may")
            return
        session = Session(sock, self._max_bytes)
        self.sessions.add(session)
        self._say(session, Kind.HELLO, 0, frames.hello(self._max_bytes))

    def limit(self, max_bytes: int, timeout: float | None) -> None:
        """task_max_bytes and task_timeout are these from now on."""
        self.results.timeout = timeout
        self._max_bytes = self._in.most = self._out.most = max_bytes
        self._arena.spool.max_bytes = max_bytes
        for session in list(self.sessions):
            session.reader.max_bytes = max_bytes
            self._say(session, Kind.HELLO, 0, frames.hello(max_bytes))

    def wanted(self, session: Session) -> int:
        """Return what to wait for on a session's socket."""
        reads = not session.is_full and not self._in.waits(session)
        return (select.EPOLLIN if reads else 0) | (select.EPOLLOUT if session.out_bytes else 0)

    def serve(self, session: Session, events: int) -> None:
        """Something that was waited for has come on a session's socket."""
        try:
            if events & select.EPOLLOUT:
                session.flush(time.monotonic())
                self._flushed(session)
            if events & ~select.EPOLLOUT:  # also if it has hung up: what it said before counts
                self._read(session)
        except Gone:
            self.drop(session)
        if not session.is_gone:
            self._watch(session)

    def _read(self, session: Session) -> None:
        found = session.receive()
        for frame in found:
            if session.is_gone:
                return
            self._ask(session, frame)
        if found and self._in.holds(session):
            self._free_in(session)
        size = session.reader.assembling
        if size > CHUNK and not self._in.holds(session) and self._in.ask(session, size):
            session.in_due = time.monotonic() + seconds_for(size)

    def _free_in(self, session: Session) -> None:
        session.in_due = inf
        for other in self._in.free(session):
            other.in_due = time.monotonic() + seconds_for(other.reader.assembling)
            self._watch(other)

    # Asks

    def _ask(self, session: Session, frame: Frame) -> None:
        given, session.options = session.options, None
        if frame.kind == Kind.OPTIONS:
            session.options = frame
        elif frame.kind == Kind.CANCEL:
            self._cancel(session, frame)
        elif self.is_closed:
            self._refuse(session, frame.ask, "NotRunning", "the service is stopping")
        elif frame.data is None:
            text = f"a task of {frame.size} bytes; {self._max_bytes} are allowed (task_max_bytes)"
            self._refuse(session, frame.ask, "MessageTooBig", text)
        else:
            try:
                options = options_of(given, frame.ask)
                flags = _FLAGS[Kind(frame.kind)]
                ref = self.results.dispatch(frame.data, flags=flags, options=options)
            except ProcdError as error:
                self._refuse(session, frame.ask, type(error).__name__, str(error))
            else:
                self._sent(session, frame.ask, ref)

    def _sent(self, session: Session, ask: int, ref: TaskRef) -> None:
        self._asks.add(ref.id, session, ask)
        if isinstance(ref, FollowedRef) and ref.token != ref.id:
            session.tokens[ref.id] = ref.token
        if ref.acceptance is None:
            self._say(session, Kind.ACCEPTED, ask, frames.ID.pack(ref.id))
        else:
            self._say(session, Kind.WRITTEN, ask, frames.ID.pack(ref.id))
            ref.acceptance.then(lambda: self._heard(session, ask, ref))

    def _heard(self, session: Session, ask: int, ref: TaskRef) -> None:
        """The ledger has a durable task, or no room for it."""
        if ref.acceptance is None or session.asks.get(ask) != ref.id:
            return
        if ref.acceptance.error is None:
            self._say(session, Kind.ACCEPTED, ask, frames.ID.pack(ref.id))
        else:
            self._asks.leave(session, ask)
            self._refuse(session, ask, TaskRejected.__name__, ref.acceptance.error)

    def _cancel(self, session: Session, frame: Frame) -> None:
        try:
            task_id = frames.read_id(frame.data or b"")
        except wire.Undecodable as error:
            self._refuse(session, frame.ask, TaskRejected.__name__, str(error))
        else:
            done = self.results.cancel(session.tokens.get(task_id, task_id))
            self._say(session, Kind.RESULT, frame.ask, wire.pack(done))

    def _refuse(self, session: Session, ask: int, name: str, text: str) -> None:
        self._say(session, Kind.REFUSED, ask, wire.pack([name, text]))

    def _say(self, session: Session, kind: Kind, ask: int, data: bytes) -> None:
        if session.is_gone:
            return
        try:
            session.send(kind, ask, data, time.monotonic())
        except Gone:
            self.drop(session)
        else:
            if session in self.sessions:
                self._watch(session)

    # Results

    def hinted(self, token: int) -> None:
        """A task may be done: take its result in if its program has room."""
        if not self._arena.is_done(token):
            return
        session = self._asks.first(token)
        if session is None:
            self.results.take_in(token)
        elif token not in session.later and (session.later or not self._has_room(session, token)):
            session.later[token] = None
        elif token not in session.later:
            self._take(session, token)

    def _has_room(self, session: Session, token: int) -> bool:
        if session.is_full:
            return False
        size = self._arena.result_bytes(token)
        if size <= CHUNK or self._out.holds(session):
            return not session.is_large
        return not self._out.waits(session) and self._out.ask(session, size)

    def _take(self, session: Session, token: int) -> None:
        self.results.take_in(token)
        if self._out.holds(session) and not session.is_large:
            self._free_out(session)

    def told(self, task_id: int, packed: bytes, *, failed: bool) -> bool:
        """Pass a result on; False if its program is gone."""
        waiting = self._asks.settle(task_id)
        for session, ask in waiting:
            self._say(session, Kind.FAILED if failed else Kind.RESULT, ask, packed)
            if len(packed) > CHUNK and session.out_bytes:
                session.is_large = True
                session.out_due = time.monotonic() + seconds_for(len(packed))
        return bool(waiting)

    def _flushed(self, session: Session) -> None:
        """A session has read something: there may be room for what waits."""
        if session.is_large and not session.out_bytes:
            session.is_large = False
            self._free_out(session)
        self._go_on(session)

    def _free_out(self, session: Session) -> None:
        for other in self._out.free(session):
            self._go_on(other)

    def _go_on(self, session: Session) -> None:
        while session.later:
            token = next(iter(session.later))
            if not self._has_room(session, token):
                return
            del session.later[token]
            self._take(session, token)

    # Ends

    def due(self) -> float:
        """Return when a session has taken too long."""
        return min((min(each.in_due, each.out_due) for each in self.sessions), default=inf)

    def tick(self, now: float) -> None:
        for session in [s for s in self.sessions if min(s.in_due, s.out_due) <= now]:
            logs.warning("gate left: too slow", unsent=session.out_bytes, asks=len(session.asks))
            self.drop(session)

    def drop(self, session: Session) -> None:
        """A program has gone, or has to: its tasks run on."""
        if session.is_gone:
            return
        self.sessions.discard(session)
        self._forget(session)
        done = list(session.later)
        session.close()
        self._asks.drop(session)
        for token in done:
            self.results.take_in(token)
        self._free_in(session)
        self._free_out(session)

    @property
    def owes(self) -> bool:
        """Tell whether somebody waits for something from here."""
        return any(session.asks or session.out_bytes for session in self.sessions)

    def give_up(self) -> None:
        """Tell everybody who still waits that nothing will come."""
        for session in list(self.sessions):
            for ask in list(session.asks):
                self._say(session, Kind.LOST, ask, _LOST.encode())
