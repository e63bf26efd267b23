"""A load client: what clients see of a service while something is done to it.

Some clients open a connection for each request, others keep one. A kept connection that the
service closes between two messages is counted apart and opened anew: that is no failed request.
Runs its own asyncio loop in a thread, so that the caller may block in commands meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

Address = tuple[str, int] | str
# A close that crosses a request on the wire is the same event as one between two messages.
CROSSING = 0.05
MAX_FAILURES_KEPT = 20


@dataclass
class Tally:
    """What the clients saw; times in seconds of time.monotonic()."""

    ok: int = 0
    failed: int = 0
    closed_between: int = 0
    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    last_answer: float = 0.0
    longest_silence: float = 0.0

    def answered(self, since: float, now: float) -> None:
        self.ok += 1
        self.latencies.append(now - since)
        if self.last_answer:
            self.longest_silence = max(self.longest_silence, now - self.last_answer)
        self.last_answer = now

    def fail(self, reason: str) -> None:
        self.failed += 1
        if len(self.failures) < MAX_FAILURES_KEPT:
            self.failures.append(reason)

    def percentile(self, share: float) -> float:
        """The latency that *share* (0..1) of the answered requests did not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def __str__(self) -> str:
        return (
            f"{self.ok} ok, {self.failed} failed, {self.closed_between} kept connections closed, "
            f"longest silence {self.longest_silence * 1000:.0f} ms, "
            f"p50 {self.percentile(0.5) * 1000:.1f} ms, p99 {self.percentile(0.99) * 1000:.1f} ms"
        )


@dataclass(frozen=True)
class Plan:
    """Who asks what. *request* and *is_good* get the request's serial number."""

    new: int = 10  # clients that connect for each request
    kept: int = 10  # clients that keep their connection
    rest: float = 0.005  # between two requests of one client
    patience: float = 20.0  # for one answer
    request: Callable[[int], bytes] = lambda _n: b"VERSION\n"
    is_good: Callable[[int, bytes], bool] = lambda _n, line: json.loads(line) is not None
    is_http: bool = False  # the line is then the answer's body


class Load:
    """`with Load(address) as load: ...; load.tally` asks until the block ends."""

    def __init__(self, address: Address, plan: Plan | None = None) -> None:
        self.address = address
        self.plan = plan or Plan()
        self.tally = Tally()
        self._serial = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join(self.plan.patience + 10)

    async def _main(self) -> None:
        news = [self._client(is_kept=False) for _ in range(self.plan.new)]
        kept = [self._client(is_kept=True) for _ in range(self.plan.kept)]
        await asyncio.gather(*news, *kept)

    async def _client(self, *, is_kept: bool) -> None:
        while not self._is_over.is_set():
            try:
                reader, writer = await self._open()
            except OSError as error:
                self.tally.fail(f"connect: {error!r}")
                await asyncio.sleep(0.01)
                continue
            try:
                is_first = True
                while await self._ask(reader, writer, is_first=is_first):
                    is_first = False
                    await asyncio.sleep(self.plan.rest)
                    if not is_kept or self._is_over.is_set():
                        break
            finally:
                writer.close()
                await _closed(writer)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.address, str):
            return await asyncio.open_unix_connection(self.address)
        return await asyncio.open_connection(*self.address)

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_first: bool
    ) -> bool:
        """One request and its answer; False when this connection is over."""
        if reader.at_eof():
            self.tally.closed_between += 1
            return False
        number = self._serial = self._serial + 1
        since = time.monotonic()
        try:
            writer.write(self.plan.request(number))
            await writer.drain()
            line = await asyncio.wait_for(self._read(reader), self.plan.patience)
        except TimeoutError:
            self.tally.fail(f"no answer to {number} in {self.plan.patience} s")
            return False
        except OSError as error:
            return self._lost(since, is_first=is_first, reason=repr(error))
        if not line:
            return self._lost(since, is_first=is_first, reason="closed before its answer")
        if not line.endswith(b"\n") or not self.plan.is_good(number, line):
            self.tally.fail(f"wrong answer to {number}: {line!r}")
            return False
        self.tally.answered(since, time.monotonic())
        return True

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        """One answer; empty when the connection closed before its end."""
        line = await reader.readline()
        if not self.plan.is_http:
            return line
        length = 0
        while line not in {b"\r\n", b""}:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            line = await reader.readline()
        with suppress(asyncio.IncompleteReadError):
            return await reader.readexactly(length)
        return b""

    def _lost(self, since: float, *, is_first: bool, reason: str) -> bool:
        waited = time.monotonic() - since
        if not is_first and waited < CROSSING:
            self.tally.closed_between += 1
        else:
            kind = "new" if is_first else "kept"
            self.tally.fail(f"{reason} ({kind} connection, after {waited:.3f} s)")
        return False


async def _closed(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # reset by the peer: counted where it was read
        await writer.wait_closed()
