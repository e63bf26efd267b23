"""Fixtures of the tests with other programs: queues of their own, none of which is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from procd.ipc import Queue
from tests.interop import php
from tests.service import leftovers


@pytest.fixture(scope="session", autouse=True)
def own_queues() -> None:
    """Give these tests queues of their own: the programs have fixed keys."""
    leftovers.unshare_queues()


@pytest.fixture(autouse=True)
def no_queue_is_left() -> Iterator[None]:
    """Prove that whoever made a queue has removed it."""
    if not php.IS_THERE:
        pytest.skip("no php with sysvmsg (Debian: php-cli)")
    before = leftovers.queues()
    yield
    assert leftovers.queues() == before


@pytest.fixture
def queue() -> Iterator[Queue]:
    """A queue for one test; fixtures that are used by all come first, so it is gone in time."""
    made = Queue.create()
    yield made
    made.remove()
