"""Which running procd a queue belongs to, as far as the one who asks may know."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.linux import process, sysvtable
from procd.linux.sysv import MessageQueue
from procd.master.lease import Lease, noted_queue
from procd.master.tokenqueue import UNKNOWN, TokenQueue
from procd.service import owners, record
from tests.kernel import queues
from tests.kernel.forked import NOBODY, as_nobody, needs_root, outcome


@pytest.fixture
def lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lease]:
    """The lease of a service that this process is the master of, and whose record stands."""
    monkeypatch.setattr(record, "_SYSTEM", tmp_path / "records")
    monkeypatch.setattr(record, "_own_folders", lambda: iter([tmp_path / "records"]))
    tmp_path.chmod(0o755)
    (tmp_path / "records").mkdir(0o755)
    (tmp_path / "state").mkdir(0o700)
    pid = os.getpid()
    config = tmp_path / "procd.yaml"
    record.write(config, pid, process.start_time(pid), tmp_path, None, tmp_path / "state")
    held = Lease(tmp_path / "state" / "lease")
    held.acquire()
    yield held
    held.release()


def mine() -> owners.Owner:
    (found,) = (owner for owner in owners.running() if owner.pid == os.getpid())
    return found


def test_a_queue_belongs_to_the_service_whose_lease_names_it(lease: Lease) -> None:
    with queues.no_queue_left():
        tokens, other = TokenQueue(lease), MessageQueue.create()
        own, strange = (sysvtable.row(queue.id) for queue in (tokens.queue, other))
        assert owners.owner_of(own, owners.running()) == mine()
        assert owners.owner_of(strange, owners.running()) is None
        assert not mine().may_have(strange)
        tokens.remove()
        other.remove()
    assert mine().queue == (0, 0)


def test_a_queue_that_is_about_to_be_noted_belongs_to_it_already(lease: Lease) -> None:
    with queues.no_queue_left():
        queue = MessageQueue.create()
        lease.note_queue(queue.key, UNKNOWN)
        assert mine().has(sysvtable.row(queue.id))
        lease.note_queue(queue.key, queue.id + 1)
        assert not mine().has(sysvtable.row(queue.id))
        queue.remove()


@needs_root
def test_a_service_does_not_own_what_another_user_has_made(lease: Lease) -> None:
    with queues.no_queue_left():
        queue = MessageQueue.create()
        lease.note_queue(queue.key, queue.id)
        path = next((lease.path.parent.parent / "records").glob("*.json"))
        os.chown(path, NOBODY, NOBODY)
        assert not mine().may_have(sysvtable.row(queue.id))
        queue.remove()


@needs_root
def test_who_may_not_read_the_lease_is_told_that_it_may_be_the_services(lease: Lease) -> None:
    """A service of root gives its queue to the user of its processes, who could remove it."""
    with queues.no_queue_left():
        tokens = TokenQueue(lease, (NOBODY, NOBODY))
        row = sysvtable.row(tokens.queue.id)
        master = os.getpid()

        def told() -> object:
            (found,) = (owner for owner in owners.running() if owner.pid == master)
            return found.has(row), found.may_have(row)

        assert outcome(as_nobody(told)) == repr((False, True))
        tokens.remove()


@pytest.mark.parametrize("content", [b"", b"1 2 3", b"a b c d", b"\xff" * 9, b"1 2 3 4 5"])
def test_a_lease_that_makes_no_sense_names_no_queue(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lease"
    path.write_bytes(content)
    assert noted_queue(path) == (0, 0)


def test_a_record_of_an_older_version_has_no_queue(lease: Lease) -> None:
    pid = os.getpid()
    config = lease.path.parent.parent / "procd.yaml"
    record.write(config, pid, process.start_time(pid), config.parent, None)
    assert mine().queue == (0, 0)
