"""The arena file byte by byte: geometry, header, damage."""

from __future__ import annotations

import itertools
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procd.ipc import layout as lay
from procd.ipc import words
from procd.ipc.layout import Damaged, Layout, Meta

layouts = st.builds(
    Layout.of,
    st.integers(1, 1 << 20),
    st.integers(1, 64 * 1024),
    st.integers(0, words.MAX_EPOCH),
)
HEADER_BYTES = 36  # without what follows the checksum


def pieces(layout: Layout) -> list[tuple[int, int]]:
    """Where each part of the file begins and ends."""
    last = layout.slots - 1
    return [
        (0, HEADER_BYTES),
        (layout.chunk_at(0), layout.chunk_at(layout.chunks - 1) + 8),
        (layout.word_at(0), layout.word_at(last) + 8),
        (layout.body_at(0), layout.body_at(last) + layout.body_bytes),
    ]


@given(layouts)
def test_no_two_parts_of_the_file_overlap(layout: Layout) -> None:
    parts = pieces(layout)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(parts))
    assert parts[-1][1] == layout.size


@given(layouts)
def test_every_word_is_aligned_and_so_never_torn(layout: Layout) -> None:
    assert layout.words_at % lay.PAGE == 0
    assert layout.chunk_at(0) % 8 == 0
    assert layout.word_at(layout.slots - 1) % 8 == 0
    assert layout.body_at(layout.slots - 1) % 8 == 0
    assert lay.META.size <= lay.META_BYTES


@given(st.integers(1, 1 << 20), st.integers(1, 64 * 1024))
def test_there_is_at_least_the_room_that_was_asked_for(slots: int, slot_bytes: int) -> None:
    layout = Layout.of(slots, slot_bytes, 0)
    assert slots <= layout.slots < slots + layout.chunk_slots
    assert slot_bytes <= layout.slot_bytes < slot_bytes + 8
    assert layout.chunks * layout.chunk_slots == layout.slots <= words.MAX_SLOTS


def test_few_slots_are_in_many_chunks_so_that_one_process_cannot_hold_them_all() -> None:
    assert Layout.of(64, 256, 0).chunks == 64
    assert Layout.of(1000, 256, 0).chunks >= 256
    assert Layout.of(32768, 1024, 0).chunk_slots == 64


# ---------------------------------------------------------------- header


def page(layout: Layout) -> bytes:
    return layout.header().ljust(lay.PAGE, b"\0")


@given(layouts)
def test_a_header_tells_the_geometry(layout: Layout) -> None:
    assert Layout.read(page(layout), layout.size) == layout


def forged(**fields: int | bytes) -> bytes:
    """A header with a right checksum and these fields."""
    values: dict[str, int | bytes] = {
        "magic": lay.MAGIC,
        "version": lay.VERSION,
        "slots": 64,
        "slot_bytes": 256,
        "chunk_slots": 1,
        "first_epoch": 5,
    }
    body = struct.pack("<8sIIIIQ", *(values | fields).values())
    return body + struct.pack("<I", zlib.crc32(body))


SIZE = Layout(64, 256, 1).size


def test_the_forged_header_is_right_when_nothing_is_changed() -> None:
    assert Layout.read(forged(), SIZE) == Layout(64, 256, 1, 5)


@pytest.mark.parametrize(
    ("head", "size", "why"),
    [
        (b"", 0, "too short"),
        (forged()[:-1], SIZE, "too short"),
        (bytes(lay.PAGE), SIZE, "not an arena"),
        (forged(magic=b"procdarm"), SIZE, "not an arena"),
        (forged()[:-4] + bytes(4), SIZE, "checksum"),
        (forged(version=1), SIZE, "of version 1, this procd reads 3"),
        (forged(slots=0), SIZE, "0 slots in chunks of 1"),
        (forged(slots=words.MAX_SLOTS + 1), SIZE, "1048577 slots"),
        (forged(chunk_slots=0), SIZE, "chunks of 0"),
        (forged(chunk_slots=48), SIZE, "64 slots in chunks of 48"),
        (forged(), SIZE - 1, f"{SIZE - 1} bytes instead of {SIZE}"),
        (forged(), SIZE + lay.PAGE, "bytes instead of"),
        (forged(slot_bytes=264), SIZE, "bytes instead of"),
    ],
)
def test_a_header_that_cannot_be_is_refused_with_its_reason(
    head: bytes, size: int, why: str
) -> None:
    with pytest.raises(Damaged, match=why):
        Layout.read(head, size)


def test_each_flipped_bit_of_the_header_is_noticed() -> None:
    good = page(Layout(64, 256, 1, 5))
    for bit in range(HEADER_BYTES * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged):
            Layout.read(bytes(bad), SIZE)


@given(st.binary(max_size=80), st.integers(0, 2**40))
def test_random_bytes_are_damaged_and_nothing_else(head: bytes, size: int) -> None:
    with pytest.raises(Damaged):
        Layout.read(head, size)


@given(
    *([st.integers(0, 2**32 - 1)] * 4),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**40) | st.just(SIZE),
)
def test_random_headers_with_a_right_checksum_are_read_or_damaged(
    version: int, slots: int, slot_bytes: int, chunk_slots: int, epoch: int, size: int
) -> None:
    head = forged(
        version=version % 3,
        slots=slots,
        slot_bytes=slot_bytes,
        chunk_slots=chunk_slots,
        first_epoch=epoch,
    )
    try:
        layout = Layout.read(head, size)
    except Damaged:
        return
    assert layout.size == size


# ---------------------------------------------------------------- owners and metas


@given(st.integers(0, words.MAX_ROWS - 1), st.integers(1, 2**32 - 1))
def test_an_owner_is_neither_nobody_nor_an_orphan(row: int, incarnation: int) -> None:
    word = lay.owner_word(row, incarnation)
    assert word not in (lay.NOBODY, lay.ORPHAN)
    assert word < 2**64


@given(*([st.integers(0, words.MAX_ROWS - 1), st.integers(1, 2**32 - 1)] * 2))
def test_two_processes_never_have_the_same_owner_word(
    row: int, incarnation: int, other_row: int, other_incarnation: int
) -> None:
    is_same = lay.owner_word(row, incarnation) == lay.owner_word(other_row, other_incarnation)
    assert is_same is ((row, incarnation) == (other_row, other_incarnation))


SMALL = Layout.of(64, 256, 0)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
i32 = st.integers(-(2**31), 2**31 - 1)
plain_floats = st.floats(allow_nan=False)
metas = st.builds(Meta, u32, u32, i32, i32, u32, u32, u32, plain_floats, u64, u32, u64)
results = st.integers(0, 2**63 - 1)


@given(metas)
def test_a_meta_comes_back(meta: Meta) -> None:
    assert Meta.unpack(meta.pack()) == meta


@given(results, st.booleans())
def test_a_results_word_comes_back(size: int, failed: bool) -> None:  # noqa: FBT001 - a case
    word = lay.result_word(size, failed=failed)
    assert lay.result_of(word) == (size, failed)


@given(metas, results)
def test_a_slot_has_files_if_its_payload_or_its_result_is_longer(meta: Meta, size: int) -> None:
    body = bytearray(lay.META_BYTES)
    body[: lay.META.size] = meta.pack()
    lay.WORD.pack_into(body, lay.RESULT_AT, lay.result_word(size, failed=False))

    is_longer = meta.payload_bytes > SMALL.slot_bytes or size > SMALL.slot_bytes

    assert SMALL.is_spooled(bytes(body)) is is_longer


@given(metas)
def test_a_durable_task_is_owed_a_note_until_the_ledger_has_said_something(meta: Meta) -> None:
    owed = bool(meta.flags & lay.DURABLE) and meta.ledger == lay.OPEN
    assert lay.is_owed(meta.pack()) is owed


def test_a_result_and_the_ledgers_note_are_words_of_their_own() -> None:
    assert lay.META.size == lay.RESULT_AT
    assert lay.META.unpack_from(bytes(lay.LEDGER_AT) + lay.WORD.pack(7))[-1] == 7
    assert lay.LEDGER_AT % 8 == 0
    assert lay.RESULT_AT % 8 == 0
    assert lay.RESULT_AT + 8 <= lay.META_BYTES
