"""An arena that somebody has damaged: set aside with a message, or it goes on; and no wrong task.

Whatever was changed, what a task worker claims is what was accepted under that token, and nothing
that a master, a task worker or a ledger does with such an arena raises.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from math import inf, nan
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procd.ipc import layout as lay
from procd.ipc import terms, words
from procd.ipc.words import SlotState
from procd.master import inheritance
from tests.kernel.arenas import EPOCH, serving
from tests.kernel.damaged import SHAPE, close, filled, spread, survives
from tests.service.daemon import scaled

CASES = 500  # in each round: a test that takes minutes is taken for one that hangs
ROUNDS = scaled(20)  # 1, and 20 in the full count: 10,000 cases


@pytest.fixture(scope="module", autouse=True)
def closed_at_the_end() -> Iterator[None]:
    yield
    close()


# ---------------------------------------------------------------- at random

# Where a byte counts: header, chunk table, words, metas and terms; and anywhere.
PLACES = st.one_of(
    st.integers(0, 48),
    st.integers(SHAPE.chunk_at(0), SHAPE.chunk_at(SHAPE.chunks) - 1),
    st.integers(SHAPE.words_at, SHAPE.word_at(SHAPE.slots) - 1),
    st.builds(
        lambda slot, at: SHAPE.body_at(slot) + at,
        st.integers(0, SHAPE.slots - 1),
        st.integers(0, lay.META_BYTES - 1),
    ),
    st.integers(49, SHAPE.size - 1),
)
CHANGES = st.lists(st.tuples(PLACES, st.integers(0, 255)), min_size=1, max_size=200)


def changed(changes: list[tuple[int, int]]) -> bytes:
    arena = bytearray(filled()[0]["arena"])
    for at, byte in changes:
        arena[at] = byte
    return bytes(arena)


@pytest.mark.parametrize("turn", range(ROUNDS))
@given(CHANGES)
@settings(max_examples=CASES)
def test_random_bytes_run_no_wrong_task_and_end_nobody(
    turn: int, changes: list[tuple[int, int]]
) -> None:
    assert turn < ROUNDS
    survives(changed(changes))


@given(st.integers(0, SHAPE.size - 1), st.binary(min_size=1, max_size=4096))
@settings(max_examples=CASES // 5)
def test_a_foreign_block_runs_no_wrong_task_and_ends_nobody(at: int, block: bytes) -> None:
    arena = filled()[0]["arena"]
    survives(arena[:at] + block[: SHAPE.size - at] + arena[at + len(block) :])


@given(st.integers(0, SHAPE.size * 2), st.binary(max_size=64))
@settings(max_examples=CASES // 10)
def test_one_cut_short_lengthened_or_foreign_is_set_aside(size: int, head: bytes) -> None:
    arena = filled()[0]["arena"]
    other = (head + arena[len(head) :])[:size].ljust(size, b"\0")
    assert other == arena or survives(other) == [] or other[: lay.PAGE] == arena[: lay.PAGE]


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.booleans(), st.binary(max_size=50))))
@settings(max_examples=CASES // 10)
def test_whatever_lies_in_the_spool_runs_no_wrong_task(
    others: list[tuple[int, bool, bytes]],
) -> None:
    """Names that could be procd's, and other bytes under those that are."""
    kept = [name for name in filled()[0] if name != "arena"]
    files = [(f"spool/{n:016x}.{'task' if is_task else 'result'}", d) for n, is_task, d in others]
    files += [(name, data) for name, (_, _, data) in zip(kept, others, strict=False)]
    survives(None, files=tuple(files))


# ---------------------------------------------------------------- one after the other


def test_all_of_an_arena_without_damage_is_run() -> None:
    """What the others rest on: this one claims whatever there is."""
    claimed = survives(None)
    assert len(set(claimed)) >= 20
    assert set(claimed) <= set(filled()[1])


def words_of(state: SlotState) -> list[int]:
    """The numbers of the slots in a state."""
    table = struct.unpack_from(f"<{SHAPE.slots}Q", filled()[0]["arena"], SHAPE.words_at)
    return [number for number, word in enumerate(table) if word & words.STATE_MASK == state]


def with_states(old: SlotState, new: SlotState) -> bytes:
    arena = bytearray(filled()[0]["arena"])
    for number in words_of(old):
        arena[SHAPE.word_at(number)] = arena[SHAPE.word_at(number)] & ~words.STATE_MASK | new
    return bytes(arena)


@pytest.mark.parametrize("new", SlotState)
@pytest.mark.parametrize("old", SlotState)
def test_a_word_that_tells_another_state_runs_nothing_else(old: SlotState, new: SlotState) -> None:
    survives(with_states(old, new))


@pytest.mark.parametrize("new", [SlotState.QUEUED, SlotState.ADDRESSED, SlotState.DELAYED])
def test_a_task_that_is_over_does_not_run_again_though_its_word_says_so(new: SlotState) -> None:
    claimed = survives(with_states(SlotState.FREE, new))
    assert set(claimed) <= set(filled()[1])


def test_tasks_of_a_chunk_that_is_nobodys_by_damage_are_run() -> None:
    arena = bytearray(filled()[0]["arena"])
    arena[SHAPE.chunk_at(0) : SHAPE.chunk_at(SHAPE.chunks)] = bytes(8 * SHAPE.chunks)
    assert set(survives(bytes(arena))) == set(survives(None))


@pytest.mark.parametrize("due", [nan, inf, -inf, -1.0, 1e308, 5e-324])
def test_a_task_without_a_due_time_that_is_one_holds_nobody_up(due: float) -> None:
    arena = bytearray(filled()[0]["arena"])
    for number in words_of(SlotState.DELAYED):
        struct.pack_into("<d", arena, SHAPE.body_at(number) + terms.DUE_AT, due)
    numbers = words_of(SlotState.DELAYED)
    delayed = {token for token in filled()[1] if words.slot_of(token) in numbers}
    claimed = set(survives(bytes(arena)))
    assert claimed >= set(survives(None)) - delayed
    assert bool(claimed & delayed) is not (due > time.time())


@pytest.mark.parametrize("at", [terms.DUE_AT, terms.TRIES_AT, terms.CANCELLED_AT, lay.RESULT_AT])
@pytest.mark.parametrize("byte", [0x00, 0x7F, 0x80, 0xFF])
def test_words_that_no_seal_is_over_end_nobody(at: int, byte: int) -> None:
    arena = bytearray(filled()[0]["arena"])
    for number in range(SHAPE.slots):
        arena[SHAPE.body_at(number) + at : SHAPE.body_at(number) + at + 8] = bytes([byte]) * 8
    survives(bytes(arena))


@pytest.mark.parametrize("at", range(0, lay.SEAL_AT, 4))
def test_a_meta_that_was_changed_is_not_believed(at: int) -> None:
    arena = bytearray(filled()[0]["arena"])
    for number in range(SHAPE.slots):
        arena[SHAPE.body_at(number) + at] ^= 1
    assert survives(bytes(arena)) == []


def test_an_arena_of_an_older_version_is_set_aside() -> None:
    arena = bytearray(filled()[0]["arena"])
    struct.pack_into("<I", arena, 8, lay.VERSION - 1)
    assert survives(bytes(arena)) == []


def test_ids_do_not_run_out_because_of_one_damaged_word(tmp_path: Path) -> None:
    spread(tmp_path, changed([(SHAPE.word_at(0) + at, 0xFF) for at in range(1, 8)]))
    with suppress(FileNotFoundError):
        for _ in range(3):
            inheritance.open_arena(tmp_path / "arena", tmp_path / "ids", 64, 256, EPOCH).close()
            with serving(tmp_path) as service:
                service.recovery.adopt(0.0)
                assert service.file.last_epoch() < EPOCH + 100
                service.stop(discard=True)
