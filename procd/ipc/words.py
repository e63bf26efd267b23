"""The slot word: what a task slot says about itself in 8 bytes, and who may change it.

Pure: integers in, integers out. The word is the one thing of a slot that several
processes look at without a lock, so it is always written whole, aligned and last
(anything else tears: two fields written apart were seen half-new by readers).

    word  = epoch 43 bits | row 12 | attempt 6 | state 3
    token = epoch 43 bits | slot 20

A token names one use of one slot: it is what travels through the message queue, and it
is the task's id. Epochs only grow, also over restarts (an arena starts its epochs at
the greater of what it has stored and the time in milliseconds), so an id is never given
twice within a state_dir.
"""

from __future__ import annotations

from enum import Enum, IntEnum, auto
from typing import NamedTuple

STATE_BITS, ATTEMPT_BITS, ROW_BITS, EPOCH_BITS, SLOT_BITS = 3, 6, 12, 43, 20
MAX_ATTEMPTS = (1 << ATTEMPT_BITS) - 1
MAX_ROWS = 1 << ROW_BITS
MAX_SLOTS = 1 << SLOT_BITS
MAX_EPOCH = (1 << EPOCH_BITS) - 1
LAST_EPOCH = MAX_EPOCH >> 1  # no arena comes so far, in the year 2109: beyond is damage

STATE_MASK = (1 << STATE_BITS) - 1
_ROW_SHIFT = STATE_BITS + ATTEMPT_BITS
_EPOCH_SHIFT = _ROW_SHIFT + ROW_BITS
_SLOT_MASK = MAX_SLOTS - 1
_LASTING = MAX_EPOCH << _EPOCH_SHIFT | MAX_ATTEMPTS << STATE_BITS  # bits of epoch and attempt


class SlotState(IntEnum):
    """Where one use of a slot stands."""

    FREE = 0
    QUEUED = 1  # accepted, for any task worker
    ADDRESSED = 2  # accepted, for the task worker of one seat
    RUNNING = 3  # claimed: a task worker holds the record lock on its byte
    DONE = 4  # the result stands in the slot, for the dispatcher to read
    HELD = 5  # written, and accepted once the ledger has it on its disk
    DEAD = 6  # it is given up; its failure is told once the ledger has it
    DELAYED = 7  # accepted, or to be tried once more, and not due yet: the master queues it then


_S = SlotState
LIVE = (_S.HELD, _S.QUEUED, _S.ADDRESSED, _S.DELAYED, _S.RUNNING)


class Writer(Enum):
    """Who changes a word."""

    DISPATCHER = auto()
    TASK_WORKER = auto()
    MASTER = auto()
    LEDGER = auto()


_W = Writer

# A change that is missing here cannot happen; check() raises on it.
CHANGES: dict[tuple[SlotState, SlotState], frozenset[Writer]] = {
    (_S.FREE, _S.QUEUED): frozenset({_W.DISPATCHER}),
    (_S.FREE, _S.ADDRESSED): frozenset({_W.DISPATCHER}),
    (_S.FREE, _S.DELAYED): frozenset({_W.DISPATCHER}),
    (_S.DELAYED, _S.QUEUED): frozenset({_W.MASTER}),
    (_S.QUEUED, _S.RUNNING): frozenset({_W.TASK_WORKER}),
    (_S.ADDRESSED, _S.RUNNING): frozenset({_W.TASK_WORKER}),
    (_S.RUNNING, _S.DONE): frozenset({_W.TASK_WORKER, _W.MASTER}),
    # Its process died: once more, or it has used up its attempts.
    (_S.RUNNING, _S.QUEUED): frozenset({_W.MASTER}),
    # Its handler raised: it has retries left, or has used them up.
    (_S.RUNNING, _S.DELAYED): frozenset({_W.TASK_WORKER}),
    (_S.RUNNING, _S.DEAD): frozenset({_W.MASTER, _W.TASK_WORKER}),
    # Cancelled before it began.
    (_S.QUEUED, _S.DONE): frozenset({_W.MASTER}),
    (_S.ADDRESSED, _S.DONE): frozenset({_W.MASTER}),
    (_S.DELAYED, _S.DONE): frozenset({_W.MASTER}),
    (_S.DEAD, _S.DONE): frozenset({_W.LEDGER}),
    (_S.FREE, _S.HELD): frozenset({_W.DISPATCHER}),
    (_S.HELD, _S.QUEUED): frozenset({_W.LEDGER}),
    (_S.HELD, _S.DELAYED): frozenset({_W.LEDGER}),
    (_S.HELD, _S.DONE): frozenset({_W.LEDGER}),  # there is no room for it
    # The seat that it was addressed to is gone.
    (_S.ADDRESSED, _S.QUEUED): frozenset({_W.MASTER}),
    (_S.DONE, _S.FREE): frozenset({_W.DISPATCHER, _W.MASTER}),
    # `procd stop --discard`.
    (_S.QUEUED, _S.FREE): frozenset({_W.MASTER}),
    (_S.ADDRESSED, _S.FREE): frozenset({_W.MASTER}),
    (_S.DELAYED, _S.FREE): frozenset({_W.MASTER}),
    (_S.HELD, _S.FREE): frozenset({_W.MASTER}),
}


class Word(NamedTuple):
    """A slot word taken apart."""

    state: SlotState
    attempt: int  # 0 = the first
    row: int  # of the task worker that claimed it; 0 while nobody has
    epoch: int


class IllegalChange(Exception):
    """A word was about to go where no rule leads: a bug in the writer."""


def pack(state: SlotState, attempt: int, row: int, epoch: int) -> int:
    """Return the 64-bit word."""
    return epoch << _EPOCH_SHIFT | row << _ROW_SHIFT | attempt << STATE_BITS | state


def unpack(word: int) -> Word:
    """Take a word apart; raises ValueError on a state that does not exist (damage)."""
    return Word(
        SlotState(word & STATE_MASK),
        word >> STATE_BITS & MAX_ATTEMPTS,
        word >> _ROW_SHIFT & MAX_ROWS - 1,
        word >> _EPOCH_SHIFT,
    )


def moved(word: int, state: SlotState, row: int) -> int:
    """Return the word with another state and row: quicker than to take it apart."""
    return word & _LASTING | row << _ROW_SHIFT | state


def freed(token: int) -> int:
    """Return the word of a slot of which a token's was the last use."""
    return token >> SLOT_BITS << _EPOCH_SHIFT | SlotState.FREE


def attempt_of(word: int) -> int:
    """Return the attempt."""
    return word >> STATE_BITS & MAX_ATTEMPTS


def state_of(word: int) -> int:
    """Return the state as a plain int, valid or not."""
    return word & STATE_MASK


def epoch_of(word: int) -> int:
    """Return the epoch."""
    return word >> _EPOCH_SHIFT


def is_of(word: int, token: int, state: SlotState) -> bool:
    """Tell whether a slot's word says that a token's task is in a state."""
    return word & STATE_MASK == state and word >> _EPOCH_SHIFT == token >> SLOT_BITS


def check(old: int, new: int, writer: Writer) -> None:
    """Raise IllegalChange unless *writer* may turn *old* into *new*."""
    before, after = unpack(old), unpack(new)
    if writer not in CHANGES.get((before.state, after.state), frozenset()):
        raise IllegalChange(f"{writer.name}: {before.state.name} -> {after.state.name}")
    starts = before.state is SlotState.FREE
    if after.epoch != before.epoch + starts:
        raise IllegalChange(f"epoch {before.epoch} -> {after.epoch} into {after.state.name}")


def token(slot: int, epoch: int) -> int:
    """Return the token (= task id) of one use of a slot."""
    return epoch << SLOT_BITS | slot


def slot_of(token: int) -> int:
    """Return the slot that a token names."""
    return token & _SLOT_MASK


def token_epoch(token: int) -> int:
    """Return the epoch that a token names."""
    return token >> SLOT_BITS
