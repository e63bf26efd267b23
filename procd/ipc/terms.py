"""The terms of a task: what its sender asked for beyond "run it", in the slot behind the meta.

Pure. They are written with the meta, before the task is accepted; where there are none (the
meta's flags tell), what stands there is an earlier task's. Three of them change later,
each by whoever has the slot in hand, and before the word that tells of it:
- due and failures by the task worker whose handler raised, before the word says DELAYED;
- crashes by the master, once the process that ran it is dead;
- cancelled by anybody, in one store of its own: the task's token, so that a late one does
  nothing to the next task in the slot.

Times are those of the wall clock: a task may lie in the arena over a restart of the machine.
"""

from __future__ import annotations

import signal
import struct
from typing import NamedTuple

# Tells a task worker to look whether the task that it runs is cancelled or overdue.
NUDGE = signal.SIGRTMIN + 3

# Flags of a Meta.
TERMS = 4  # it has terms worth a look
AT_MOST_ONCE = 8  # not again if its process dies

AT, BYTES = 64, 64  # within the meta's bytes
DUE_AT, TRIES_AT, KEY_AT, CANCELLED_AT = 64, 72, 112, 120
FIXED_AT, FIXED_END = 80, 112  # what never changes, and is sealed (ipc.layout)
_MOST = 0xFFFF_FFFF
_TERMS = struct.Struct("<dIIddffIIQQ")


class Terms(NamedTuple):
    """One task's; 0 is none of a kind."""

    due: float = 0.0  # not to be begun before
    failures: int = 0  # how often its handler has raised
    crashes: int = 0  # how often its process has died
    expires: float = 0.0  # not to be begun after
    timeout: float = 0.0  # seconds that a run may take
    retry_delay: float = 0.0  # seconds before the first retry; doubled before each later one
    retry_max_delay: float = 0.0
    retries: int = 0  # after exceptions
    max_attempts: int = 0  # crashes that it may cost; 0 = as the config says
    key: int = 0  # one live task each: ipc.keytable
    cancelled: int = 0  # its own token: somebody does not want it any more

    def pack(self) -> bytes:
        return _TERMS.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> Terms:
        """Return those in the bytes of a meta."""
        these = cls(*_TERMS.unpack_from(data, AT))
        # No number at all is damage. Such a task must not wait for ever: it is due.
        return these if these.due >= 0 else these._replace(due=0.0)

    @staticmethod
    def key_in(packed: bytes) -> int:
        """Return the key in what pack() has made, 0 if that is nothing."""
        return int.from_bytes(packed[KEY_AT - AT : KEY_AT - AT + 8], "little")

    @property
    def tries(self) -> int:
        """Failures and crashes as the one word that they are in the slot."""
        return min(self.crashes, _MOST) << 32 | min(self.failures, _MOST)


def grace(timeout: float) -> float:
    """Return the seconds between TaskTimeout in a handler and the end of its process."""
    return max(1.0, timeout / 10)


CANCEL_GRACE = 1.0  # the same for TaskCancelled
