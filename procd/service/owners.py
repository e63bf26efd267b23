"""Which running procd a message queue belongs to.

By the records of all services that this user may know of, by the lease of each, which names its
queue, and by the file beside that for the public one. A claim counts only if who made it has made
the queue too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from procd.linux.sysvtable import QueueStat
from procd.master import publicqueue
from procd.master.lease import noted_queue
from procd.master.tokenqueue import UNKNOWN
from procd.service import record


@dataclass(frozen=True, slots=True)
class Owner:
    """A running service and its queues."""

    config_path: Path
    pid: int
    uid: int
    queue: tuple[int, int] | None  # key and id, 0 = none; None = this user may not know
    public: tuple[int, int] = (0, 0)  # likewise, the one of foreign programs

    def has(self, queue: QueueStat) -> bool:
        """Say whether it is surely this service's."""
        if self.queue is None or self.uid != queue.creator_uid:
            return False
        if self.has_public(queue):
            return True
        key, number = self.queue
        return key == queue.key and number in (queue.id, UNKNOWN)

    def has_public(self, queue: QueueStat) -> bool:
        """Say whether it is the one of foreign programs."""
        return self.public == (queue.key, queue.id)

    def may_have(self, queue: QueueStat) -> bool:
        """Say whether it cannot be told from here that the queue is not this service's."""
        return self.has(queue) or (self.queue is None and self.uid == queue.creator_uid)


def running() -> list[Owner]:
    """Every running service, with its queue."""
    return [
        Owner(found.config_path, found.pid, found.uid, _queue_of(found), _public_of(found))
        for found in record.living()
    ]


def owner_of(queue: QueueStat, owners: Iterable[Owner]) -> Owner | None:
    """Return the one whose queue it is."""
    return next((owner for owner in owners if owner.has(queue)), None)


def _queue_of(found: record.Record) -> tuple[int, int] | None:
    if found.state_dir is None:  # an older version wrote the record
        return (0, 0)
    try:
        return noted_queue(found.state_dir / "lease")
    except PermissionError:
        return None
    except OSError:
        return (0, 0)


def _public_of(found: record.Record) -> tuple[int, int]:
    return (0, 0) if found.state_dir is None else publicqueue.noted(found.state_dir)
