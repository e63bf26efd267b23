"""What a worker or task worker arranges with the kernel about its own life."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
from contextlib import suppress

from procd.ipc.channel import Channel
from procd.ipc.scoreboard import Role
from procd.linux.timers import Deadline
from procd.spawn.context import Context

KILL_SECONDS = 1.0  # for the stack to be written


def end_if_stuck(loop: asyncio.AbstractEventLoop, context: Context) -> None:
    """Have the kernel end this worker should its loop stand still for hang_timeout.

    Not a task worker, for a task may take as long as it likes. The Python stack stands in the log
    then (faulthandler). The log's reader may not read, or the app have a handler of its own that
    never runs: SIGKILL comes in any case.
    """
    seconds = context.config.hang_timeout
    if seconds is None or context.role is Role.TASK:
        return
    faulthandler.enable()
    deadlines = Deadline(seconds, signal.SIGABRT), Deadline(seconds + KILL_SECONDS, signal.SIGKILL)
    pause = max(1.0, seconds / 4) if seconds > 2 else seconds / 4

    def turn() -> None:
        for deadline in deadlines:
            deadline.put_off()
        loop.call_later(pause, turn)

    turn()


def let_go_in_children(context: Context) -> None:
    """Make what the app forks (multiprocessing) no process of procd.

    It must die of signals like any other, and hold neither the listeners, which others may
    want to bind, nor the lease.
    """

    def let_go() -> None:
        for signum in signal.valid_signals():
            if callable(signal.getsignal(signum)) and signum != signal.SIGINT:
                signal.signal(signum, signal.SIG_DFL)
        for fd in (*context.listener_fds, context.origin.lease_fd):
            with suppress(OSError):
                os.close(fd)

    os.register_at_fork(after_in_child=let_go)


def retire_on_sigterm(channel: Channel) -> None:
    """Take a SIGTERM to this one process for a wish: replaced first, then it drains."""
    signal.signal(signal.SIGTERM, lambda *_: bool(channel.send("retire", {"why": "SIGTERM"})))
