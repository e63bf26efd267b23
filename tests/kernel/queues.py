"""Queues of a test: the keys that it used, and the proof that none is left."""

from __future__ import annotations

import contextlib
import ctypes
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sysv_ipc

CLONE_NEWIPC = 0x08000000


def standing() -> set[int]:
    """The keys of all queues in this IPC namespace: proc(5), /proc/sysvipc/msg."""
    lines = Path("/proc/sysvipc/msg").read_text().splitlines()[1:]
    return {int(line.split()[0]) for line in lines}


def free_key() -> int:
    """A key that no queue has."""
    return 1 + secrets.randbelow(2**31 - 1)


@contextlib.contextmanager
def no_queue_left() -> Iterator[None]:
    """Prove that of the queues that this process opens meanwhile none outlives the block.

    Other programs' queues come and go beside it, so only keys that passed here count.
    """
    passed: set[int] = set()
    real = sysv_ipc.MessageQueue

    def recording(key: int, *arguments: int, **named: int) -> object:
        passed.add(key)
        return real(key, *arguments, **named)

    before = standing()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sysv_ipc, "MessageQueue", recording)
        yield
    left = (standing() - before) & passed
    for key in left:
        real(key).remove()
    assert not left


def in_own_namespace(body: Callable[[], object]) -> Callable[[], object]:
    """Have *body*, which runs in a child, see an IPC namespace without any queue."""

    def entered() -> object:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWIPC) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        return body()

    return entered


def set_limit(name: str, value: int) -> None:
    """Set kernel.NAME of this IPC namespace."""
    with open(f"/proc/sys/kernel/{name}", "w", encoding="ascii") as limit:
        limit.write(str(value))
