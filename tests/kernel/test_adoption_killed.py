"""A master killed while it takes over what an earlier one left: the next finds all of it.

At each moment: the kill comes before the n-th call into C, for every n that there is, so before and
after each write to the arena, each token sent, each file removed.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pytest

from procd.ipc.words import SlotState
from procd.linux.sysv import MessageQueue, QueueGone
from procd.master import inheritance
from procd.master.lease import noted_queue
from tests.kernel.arenas import EPOCH, serving
from tests.kernel.damaged import spread
from tests.service.daemon import scaled


class Taken(NamedTuple):
    """What a master has made of what was there."""

    tokens: list[int]
    slots: list[tuple[int, SlotState, int]]  # token, state, attempt
    files: list[str]


def adopt(folder: Path) -> Taken:
    """Be a master that takes over, as far as it serves; then be killed."""
    inheritance.open_arena(folder / "arena", folder / "ids", 64, 256, EPOCH).close()
    with serving(folder) as service:
        service.recovery.adopt(0.0)
        found = [(slot.token, slot.state, slot.attempt) for slot in service.file.in_use()]
        files = sorted(path.name for path in (folder / "spool").iterdir())
        return Taken(sorted(service.queued()), sorted(found), files)


def adopt_until(folder: Path, call: int) -> int:
    """Be a master that is killed before its n-th call into C; the status that it ends with."""
    pid = os.fork()
    if pid == 0:
        left = call

        def count(_frame: FrameType, event: str, _arg: object) -> None:
            nonlocal left
            left -= event == "c_call"
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        adopt(folder)
        sys.setprofile(None)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def calls() -> int:
    """How many calls an adoption takes, about: it is found by halving."""
    low, high = 1, 1 << 16
    while high - low > 16:
        middle = (low + high) // 2
        with tempfile.TemporaryDirectory(prefix="procd-") as name:
            spread(Path(name))
            was_killed = adopt_until(Path(name), middle)
            low, high = (middle, high) if was_killed else (low, middle)
            adopt(Path(name))  # which removes the queue that a killed one has left
    return high


def is_there(key: int) -> bool:
    try:
        MessageQueue.open(key)
    except QueueGone:
        return False
    return True


@pytest.mark.parametrize("times", [1, 3])
def test_a_master_killed_at_any_moment_of_an_adoption_loses_nothing(
    tmp_path: Path, times: int
) -> None:
    spread(tmp_path)
    whole, count = adopt(tmp_path), calls()
    assert len(whole.tokens) >= 20
    step = max(1, count // scaled(2000))
    for call in range(1, count, step):
        with tempfile.TemporaryDirectory(prefix="procd-") as name:
            folder = Path(name)
            spread(folder)
            for number in range(times):
                adopt_until(folder, call + number * step)
            key = noted_queue(folder / "lease")[0] if (folder / "lease").exists() else 0
            assert adopt(folder) == whole, f"killed before call {call} of {count}"
            assert not (key and is_there(key))
