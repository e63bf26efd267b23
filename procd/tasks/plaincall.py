"""Calling a plain handler from within a loop's callback, as if there were no loop.

An error may be raised anywhere within by a signal's handler (tasks.limits), between any two lines
here as well: so who calls says afterwards, once more, that the loop runs.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, events
from collections.abc import Callable


def outside_of_loop(call: Callable[[], object]) -> object:
    """Call a plain handler as if no event loop ran, so that it may use asyncio.run itself.

    A task worker's loop has nothing else to do meanwhile: it runs one task at a time.
    """
    loop = running()
    back_in(None)
    try:
        return call()
    finally:
        back_in(loop)


def running() -> AbstractEventLoop | None:
    """Return the loop that runs here, if any."""
    return events._get_running_loop()  # noqa: SLF001 - for who implements loops, as we do here


def back_in(loop: AbstractEventLoop | None) -> None:
    """Have *loop* be the one that runs, as it is."""
    events._set_running_loop(loop)  # noqa: SLF001
