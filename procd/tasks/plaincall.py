"""Calling a plain handler from within a loop's callback, as if there were no loop."""

from __future__ import annotations

from asyncio import AbstractEventLoop, events
from collections.abc import Callable


def outside_of(loop: AbstractEventLoop | None, call: Callable[[], object]) -> object:
    """Call a plain handler as if *loop* did not run, so that it may use asyncio.run itself.

    A task worker's loop has nothing else to do meanwhile: it runs one task at a time.
    """
    events._set_running_loop(None)  # noqa: SLF001 - for who implements loops, as we do here
    try:
        return call()
    finally:
        events._set_running_loop(loop)  # noqa: SLF001
