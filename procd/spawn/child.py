"""How a process is forked. The only room that calls os.fork.

Whoever forks blocks all signals around it, and the child drops the parent's wakeup
descriptor and handlers before it lets any in: a signal in that window would be written
into the parent's loop. A child leaves by os._exit after flushing.

Two kinds. The master forks the base itself. Everything else is forked by the base or a
template, twice: the intermediate tells the pid on the child's channel and exits, and the
child becomes the master's own, for that is the child subreaper.
"""

from __future__ import annotations

import atexit
import gc
import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import fork as os_fork  # bound before an app could patch it (gevent does)
from typing import NoReturn

from procd import logs
from procd.ipc.channel import Channel
from procd.linux import process
from procd.linux.timers import Deadline

ADOPTION_SECONDS = 5.0
LEAVE_SECONDS = 3.0
SOFTWARE_ERROR = 70  # EX_SOFTWARE of sysexits.h

# Ctrl-C, a closed terminal or `pkill -HUP procd` reach every process; only the master acts
# on them. A Python handler, not SIG_IGN: an ignored signal would stay ignored over exec.
_NOT_MINE = (
    *(signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1),
    *(signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH),
)
_EVERY = signal.valid_signals()  # asked once, not at each fork


def fork(body: Callable[[], int], keep: Collection[int], output: int = -1) -> int:
    """Fork a child that runs *body* and exits with its status; return its pid.

    It prints into *output*, a pipe to the logger, if that is given; else what it logs it writes
    itself. All descriptors but 0-2, the log's and *keep* are closed in it. Raises OSError if
    the kernel refuses.
    """
    _flush()
    handled = _handled()
    old = signal.pthread_sigmask(signal.SIG_BLOCK, _EVERY)
    try:
        pid = os_fork()
        if pid:
            return pid
        parent = os.getppid()
        _enter(handled)
        atexit._clear()  # noqa: SLF001 - the master's own (python-daemon's) are not ours
        logs.hand_over(None)
        _print_into(output)
        process.close_fds_except({0, 1, 2, *(() if output >= 0 else logs.fds()), *keep})
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    return _run(lambda: _bound_to(parent, body))


Adopt = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Birth:
    """One process to be forked: what it does, where its pid is told, what it must not keep.

    *body* is given a function that it calls before any code of an app may run: it returns when
    the process is the master's own child and dies with it, and does not return if the master
    is gone. What can be done before costs no time, for the intermediate has yet to exit.
    """

    body: Callable[[Adopt], int]
    channel: Channel
    close: Collection[int]
    output: int = -1  # what it prints into, a pipe to the logger


def fork_for_master(births: Sequence[Birth], master: int) -> None:
    """Fork processes that become the master's children; each pid is told on its channel.

    Descriptors that a birth does not name stay open in it, for what an app opened while it
    was imported is its processes' too. A failure to fork ends the channel. Returns in the
    caller only. All of them have one intermediate: each exit of a process this large costs.
    """
    _flush()
    handled = _handled()
    all_told = mmap.mmap(-1, 1)  # shared with what is forked
    old = signal.pthread_sigmask(signal.SIG_BLOCK, _EVERY)
    try:
        intermediate = os_fork()
        if intermediate:
            with suppress(ChildProcessError):  # an app that ignores SIGCHLD has it reaped
                os.waitpid(intermediate, 0)
            return
        first_parent = os.getpid()
        birth = _fork_again(births, handled, all_told)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    _run(lambda: birth.body(lambda: _adopted_by(master, first_parent, birth, all_told)))


def _fork_again(births: Sequence[Birth], handled: Collection[int], all_told: mmap.mmap) -> Birth:
    """In the intermediate: fork all, tell the pids and leave. Returns in a child only."""
    status = 0
    for birth in births:
        try:
            pid = os_fork()
        except OSError:
            status = SOFTWARE_ERROR
            continue
        if not pid:
            _enter(handled)
            _print_into(birth.output)
            for fd in birth.close:
                with suppress(OSError):
                    os.close(fd)
            return birth
        _tell(birth, pid)
    all_told[0] = 1
    os._exit(status)


def _tell(birth: Birth, pid: int) -> None:
    with suppress(Exception):  # untold, it reaches the master by its reaping
        birth.channel.send("forked", {"pid": pid})


def _handled() -> list[int]:
    """Return the signals with a handler in Python; the app's C code may have its own.

    Asked before the fork: each look at an object copies its page afterwards.
    """
    return [number for number in _EVERY if callable(signal.getsignal(number))]


def _enter(handled: Collection[int]) -> None:
    signal.set_wakeup_fd(-1)
    for signum in handled:
        signal.signal(signum, signal.SIG_DFL)
    for signum in _NOT_MINE:
        signal.signal(signum, _ignore)
    # The parent's objects stay alive in memory but must not be collected here: their
    # finalisers would close descriptors that are somebody else's by then.
    gc.freeze()


def _print_into(output: int) -> None:
    if output >= 0:
        logs.print_into(output)


def _ignore(signum: int, frame: object) -> None:
    """Do nothing: the master alone acts on these."""


def _bound_to(parent: int, body: Callable[[], int]) -> int:
    process.die_with_parent()
    if os.getppid() != parent:  # it died before the kernel knew that we would go with it
        return 0
    return body()


def _adopted_by(master: int, first_parent: int, birth: Birth, all_told: mmap.mmap) -> None:
    # The intermediate's death must be behind us, or it would be the one that we die with.
    deadline = time.monotonic() + ADOPTION_SECONDS
    while os.getppid() == first_parent:
        if time.monotonic() > deadline:
            os._exit(SOFTWARE_ERROR)
        time.sleep(0.0002)
    if os.getppid() == master:
        process.die_with_parent()
    if os.getppid() != master:  # it died meanwhile, before the kernel knew that we go with it
        os._exit(SOFTWARE_ERROR)
    if not all_told[0]:  # the intermediate was killed on the way: nobody else can name us
        _tell(birth, os.getpid())


def _run(body: Callable[[], int]) -> NoReturn:
    status = SOFTWARE_ERROR
    try:
        status = body()
        _leave_python()
    except SystemExit as leave:
        status = 0 if leave.code is None else leave.code if isinstance(leave.code, int) else 1
    except BaseException:  # noqa: BLE001 - the process's last handler; it leaves below
        traceback.print_exc()
    finally:
        _flush()
        os._exit(status)


def _leave_python() -> None:
    """Do what the interpreter does at its end, for what the app has started.

    Executors and multiprocessing end their processes there. What the master or procd itself
    had registered was cleared when the child was forked. A thread that never ends is not
    waited for.
    """
    Deadline(LEAVE_SECONDS, signal.SIGKILL).put_off()
    threading = sys.modules.get("threading")
    with suppress(Exception):
        if threading is not None:
            threading._shutdown()  # noqa: SLF001 - joins and stops executors, as Py_Finalize does
    with suppress(Exception):
        atexit._run_exitfuncs()  # noqa: SLF001


def _flush() -> None:
    """Write what was printed: a forked child would print its parent's buffer once more."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
