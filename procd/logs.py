"""The log: one event one line, a fixed phrase then key=value.

    2026-11-23T15:04:05.123 info master[71] worker ready id=3 generation=2 boot=0.041

Every process writes its own lines, whole, to the same descriptors. A reader of the log
that does not read (a full pipe) never holds up a process: the line is dropped and counted.
"""

from __future__ import annotations

import logging
import os
import select
import time

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
log = logging.getLogger("procd")


class FdHandler(logging.Handler):
    """Writes each record as one line (a traceback as several) in one write(2) each."""

    def __init__(self, fds: tuple[int, ...], who: str) -> None:
        super().__init__()
        self.fds = fds
        self.who = who
        self.dropped = 0
        self.has_file = False

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(record.created))
        line = (
            f"{stamp}.{int(record.msecs):03d} {record.levelname.lower()} "
            f"{self.who}[{os.getpid()}] {record.getMessage()}"
        )
        if record.exc_info:
            line += "\n" + logging.Formatter().formatException(record.exc_info)
        return line

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        except Exception:  # noqa: BLE001 - an app's own __str__ may do anything
            data = b"a log record could not be formatted\n"
        for fd in self.fds:
            try:
                # A pipe that is writable takes 4096 bytes without blocking.
                ready = select.select([], [fd], [], 0)[1]
                if ready:
                    os.write(fd, data)
                else:
                    self.dropped += 1
            except (OSError, ValueError):  # a full disk, a closed stderr
                self.dropped += 1


_handler = FdHandler((2,), "procd")


def setup(fds: tuple[int, ...], level: str) -> None:
    """Send procd's log to these descriptors; once a process and its forks."""
    _handler.fds = fds
    log.handlers[:] = [_handler]
    log.propagate = False
    log.setLevel(LEVELS[level])


def name_process(who: str) -> None:
    """Say who writes from now on, as in `worker-0`."""
    _handler.who = who


def set_level(level: str) -> None:
    log.setLevel(LEVELS[level])


def fds() -> tuple[int, ...]:
    """Return the descriptors that the log goes to."""
    return _handler.fds


def line(phrase: str, **fields: object) -> str:
    """Return `phrase key=value ...`; None is left out, text with spaces is quoted."""
    parts = [phrase]
    for key, value in fields.items():
        if value is None:
            continue
        text = f"{value:.3f}" if isinstance(value, float) else str(value)
        parts.append(f"{key}={text!r}" if " " in text or not text else f"{key}={text}")
    return " ".join(parts)


def info(phrase: str, **fields: object) -> None:
    log.info("%s", line(phrase, **fields))


def warning(phrase: str, **fields: object) -> None:
    log.warning("%s", line(phrase, **fields))


def error(phrase: str, **fields: object) -> None:
    log.error("%s", line(phrase, **fields))


def reopened(received: tuple[int, ...]) -> None:
    """Go on writing into the file behind a received descriptor, which is closed.

    The log's own descriptor keeps its number, so that whatever prints to it follows too.
    """
    for fd in received:
        for target in _handler.fds:
            if target != 2 or len(_handler.fds) == 1:
                os.dup2(fd, target, inheritable=target <= 2)
                if target == 2:
                    os.dup2(fd, 1)
        os.close(fd)


def ordered(level: object, received: tuple[int, ...]) -> None:
    """Do what the master says of the log: another level, or a descriptor of the file anew."""
    if isinstance(level, str) and level in LEVELS:
        set_level(level)
    reopened(received)


def has_file() -> bool:
    """Tell whether the log goes to a file that can be reopened."""
    return _handler.has_file


def to_file(fd: int, *, also_stderr: bool, level: str) -> None:
    """Log to an open file; in the background stdout and stderr are that file, too."""
    setup((2, fd) if also_stderr else (2,), level)
    _handler.has_file = True
