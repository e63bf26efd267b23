"""Connections that stay open and count: what a client sees of moves.

Each sends a numbered message at its own pace and checks that every answer comes once and in
order. One epoll loop in a thread serves thousands of them at little cost.
"""

from __future__ import annotations

import heapq
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

MAX_FAULTS_KEPT = 20


@dataclass(slots=True)
class Line:
    """One connection. It sends without waiting for the answer to what it sent before."""

    socket: socket.socket
    pause: float
    due: float
    sent: int = 0
    answered: int = 0
    rest: bytes = b""
    began: dict[int, float] = field(default_factory=dict)


@dataclass(slots=True)
class Count:
    """What all of them saw. Times in seconds."""

    answered: int = 0
    closed: int = 0
    longest: float = 0.0  # from a message to its answer
    faults: list[str] = field(default_factory=list)
    servers: set[str] = field(default_factory=set)  # who answered

    def fault(self, text: str) -> None:
        if len(self.faults) < MAX_FAULTS_KEPT:
            self.faults.append(text)


class Steady:
    r"""`with Steady(address, {1.0: 2000, 0.1: 200}) as steady: ...`, then look at steady.count.

    The service answers `NUMBER\n` by `NUMBER WHO\n`. At the end each waits for its last answer.
    """

    def __init__(self, address: tuple[str, int], paces: dict[float, int]) -> None:
        self.count = Count()
        self._lines: dict[int, Line] = {}
        self._epoll = select.epoll()
        self._is_over = False
        began = time.monotonic()
        for pause, number in paces.items():
            for index in range(number):
                sock = socket.create_connection(address, 10)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setblocking(False)
                due = began + 1 + pause * index / number
                self._lines[sock.fileno()] = Line(sock, pause, due)
                self._epoll.register(sock, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._is_over = True
        self._thread.join()
        for line in self._lines.values():
            if line.answered != line.sent:
                self.count.fault(f"{line.sent - line.answered} answers missing at the end")
            line.socket.close()
        self._epoll.close()

    def _run(self) -> None:
        due = [(line.due, fd) for fd, line in self._lines.items()]
        heapq.heapify(due)
        end = 0.0
        while True:
            now = time.monotonic()
            if self._is_over:
                end = end or now + 10
                if now > end or all(each.answered == each.sent for each in self._lines.values()):
                    return
            while due and due[0][0] <= now and not self._is_over:
                _, fd = heapq.heappop(due)
                if fd in self._lines and self._send(self._lines[fd], now):
                    heapq.heappush(due, (self._lines[fd].due, fd))
            wait = 0.05 if self._is_over or not due else max(0, min(0.2, due[0][0] - now))
            for fd, _ in self._epoll.poll(wait):
                self._read(self._lines[fd])

    def _send(self, line: Line, now: float) -> bool:
        line.sent += 1
        line.began[line.sent] = now
        line.due += line.pause
        try:
            line.socket.send(b"%d\n" % line.sent)
        except OSError as error:
            self._lost(line, f"message {line.sent}: {error!r}")
            return False
        return True

    def _read(self, line: Line) -> None:
        try:
            data = line.socket.recv(65536)
        except OSError as error:
            self._lost(line, f"after answer {line.answered}: {error!r}")
            return
        if not data:
            self._lost(line, f"closed after answer {line.answered}")
            return
        now = time.monotonic()
        *answers, line.rest = (line.rest + data).split(b"\n")
        for answer in answers:
            number, _, who = answer.decode().partition(" ")
            if number != str(line.answered + 1):
                self.count.fault(f"answer {number} in place of {line.answered + 1}")
            line.answered += 1
            self.count.answered += 1
            self.count.servers.add(who)
            self.count.longest = max(self.count.longest, now - line.began.pop(line.answered, now))

    def _lost(self, line: Line, why: str) -> None:
        self.count.closed += 1
        self.count.fault(why)
        line.sent = line.answered
        self._epoll.unregister(line.socket)
        del self._lines[line.socket.fileno()]
        line.socket.close()
