"""Calling a plain handler from within a loop's callback, as if there were no loop."""

from __future__ import annotations

from asyncio import events
from collections.abc import Callable


def outside_of_loop(call: Callable[[], object]) -> object:
    """Call a plain handler as if no event loop ran, so that it may use asyncio.run itself.

    A task worker's loop has nothing else to do meanwhile: it runs one task at a time.
    """
    loop = events._get_running_loop()  # noqa: SLF001 - for who implements loops, as we do here
    events._set_running_loop(None)  # noqa: SLF001
    try:
        return call()
    finally:
        events._set_running_loop(loop)  # noqa: SLF001
