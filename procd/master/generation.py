"""What the master knows of one generation, and of how the last attempt at one went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from procd import logs
from procd.config.schema import Config
from procd.master.asked import Ended
from procd.master.states import SEATED, Row
from procd.master.steps import Steps


@dataclass(slots=True)
class Generation:
    """What is known of one generation."""

    config: Config
    causes: tuple[str, ...]
    steps: Steps
    sources: dict[str, str] = field(default_factory=dict)  # path → sha256 hex
    has_template: bool = False  # had one: the next is born from its manifest
    unfit: str = ""  # why nothing can be forked from a process that has imported it
    is_looked_at: bool = False  # its base has compared what it preloaded with the disk
    boots: int = 1  # attempts at it; more than one if more was saved meanwhile


@dataclass(slots=True)
class Last:
    """The last reload, as `status` tells it."""

    state: str = "booting"
    seconds: float | None = None
    error: str | None = None
    cause: tuple[str, ...] = ()
    steps: Steps | None = None  # of one that took over

    def look_drained(self, rows: Iterable[Row], stay: set[int], now: float) -> None:
        """Note, once, that nothing is left of other generations than those that *stay*."""
        steps = self.steps
        if steps is None or steps.switched is None or steps.drained is not None:
            return
        if all(row.seat.generation in stay for row in rows if row.seat.role in SEATED):
            steps.drained = now
            logs.info("drained", **steps.seconds())


@dataclass(frozen=True, slots=True)
class Trial:
    """The generation that boots, as the watch asks for it."""

    sources: Mapping[str, str]
    is_read: bool  # the app's import is over
    has_failed: bool


class Around(Protocol):
    """Whom Generations tells and asks."""

    def config_is_read(self) -> None:
        """The config is about to be read again."""

    def will_boot(self, config: Config) -> None:
        """A generation of this config is about to boot."""

    def attempted(self, ended: Ended) -> None:
        """An attempt is over."""

    def is_settled(self) -> bool:
        """Tell whether what boots is, as far as is known, what the disk holds."""
