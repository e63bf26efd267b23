"""The master's token queue: no moment of a master's life in which a kill leaks one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.linux.sysv import MessageQueue, QueueGone
from procd.master.lease import Lease
from procd.master.tokenqueue import UNKNOWN, TokenQueue


@pytest.fixture
def lease(tmp_path: Path) -> Iterator[Lease]:
    held = Lease(tmp_path / "lease")
    held.acquire()
    yield held
    held.release()


def test_a_master_killed_as_it_makes_its_queue_leaves_none_to_the_next(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        lease = Lease(tmp_path / "lease")
        lease.acquire()
        # The queue is made, and its id is not noted yet.
        TokenQueue._hand_over = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign, assignment]
        TokenQueue(lease)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL

    lease = Lease(tmp_path / "lease")
    lease.acquire()
    key, number = lease.queue
    assert number == UNKNOWN
    assert MessageQueue.open(key).messages == 0
    tokens = TokenQueue(lease)
    with pytest.raises(QueueGone):
        MessageQueue.open(key)
    tokens.remove()
    lease.release()


def test_a_queue_that_somebody_uses_is_not_taken_for_one_half_made(lease: Lease) -> None:
    used = MessageQueue.create()
    try:
        used.send(b"somebody's")
        lease.queue = (used.key, UNKNOWN)
        TokenQueue(lease).remove()
        assert used.messages == 1
    finally:
        used.remove()


def test_a_queue_made_anew_is_the_one_that_the_lease_names(lease: Lease) -> None:
    tokens = TokenQueue(lease)
    tokens.queue.remove()
    assert tokens.is_gone()
    assert tokens.remake()
    _, _, key, number = lease.path.read_text().split()
    assert (int(key), int(number)) == (tokens.key, tokens.queue.id)
    tokens.remove()
