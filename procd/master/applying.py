"""An edit of the config that is in effect, and of which processes are still to come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from procd import logs
from procd.config.change import Edit
from procd.config.schema import Config
from procd.ipc.scoreboard import Role
from procd.master.reload import Counts
from procd.master.states import Row, Seat, State


@dataclass(frozen=True, slots=True)
class Applying:
    """Over when all of them are ready, or by *until*; they are still wanted after that."""

    edit: Edit
    causes: tuple[str, ...]
    began: float
    until: float

    def is_over(self, missing: int, now: float) -> bool:
        return not missing or now >= self.until

    def log(self, missing: int, now: float) -> None:
        logs.info("config applied", **self.edit.fields, seconds=now - self.began)
        if missing:
            logs.warning("not all processes are ready", missing=missing)


def edited(counts: Counts, old: Config, new: Config) -> Counts:
    """Return the counts after an edit: one that was scaled by hand stays until its key changes."""
    return Counts(
        counts.worker if new.worker_num == old.worker_num else new.worker_num,
        counts.task if new.task_worker_num == old.task_worker_num else new.task_worker_num,
    )


def missing(rows: Iterable[Row], serving: Mapping[Role, int], counts: Counts) -> int:
    """Return how many seats of the generations that serve have nobody who serves."""
    up = {row.seat for row in rows if row.state is State.SERVING}
    return sum(
        Seat(role, number, generation) not in up
        for role, generation in serving.items()
        for number in range(counts.of(role))
    )
