"""The arena file, byte by byte: geometry, header, and what a slot's body holds.

Pure: offsets and bytes. Two rooms stand on it: arena (the processes' mapping) and
arenafile (the master's pread and pwrite).

    0      header: magic, version, geometry, CRC of these        (written once)
    4096   chunk table: one owner word a chunk
    ...    slot words, 8 bytes each, together so that a scan is one read
    ...    key table: two entries a slot, in buckets (ipc.keytable)
    ...    bodies: 128 bytes of meta and terms (ipc.terms), payload area, result area

A payload or result longer than its area stands in a file instead (ipc.spool).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from mmap import mmap
from typing import NamedTuple

from procd.ipc import words

MAGIC = b"procdarn"
VERSION = 3
PAGE = 4096
META_BYTES = 128
BUCKET_ENTRIES = 64  # of the key table

WORD = struct.Struct("<Q")  # aligned, in one pack_into: never torn
_HEADER = struct.Struct("<8sIIIIQ")  # magic, version, slots, slot_bytes, chunk_slots, first epoch
_CRC = struct.Struct("<I")
META = struct.Struct("<IIiiIIIdQIQ")
SEAL_AT = 44  # within the meta's bytes: see seal()
LEDGER_AT = 48  # within the meta's bytes: the ledger's own word
RESULT_AT = 56  # within the meta's bytes: one word, result bytes << 1 | failed
SEAL = struct.Struct("<I")
_LENGTHS = struct.Struct("<24xI28xQ")  # the payload's, and that word
_OWED = struct.Struct("<16xI28xQ")  # flags, and the ledger's word

NOBODY = 0
ORPHAN = 1  # the owner died with tasks in it: the master sweeps it


class Damaged(Exception):
    """The file is no arena that this procd can read; the text says why."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The geometry of one arena. Sizes in bytes."""

    slots: int
    slot_bytes: int  # of the payload area, and of the result area
    chunk_slots: int
    first_epoch: int = 0

    @classmethod
    def of(cls, slots: int, slot_bytes: int, first_epoch: int) -> Layout:
        """Return the geometry for a wanted capacity; *slots* is rounded up to whole chunks."""
        # Many chunks where there are few slots, so that one process cannot hold them all.
        chunk = max(1, min(64, slots // 256))
        slots = -(-slots // chunk) * chunk
        return cls(slots, (slot_bytes + 7) & ~7, chunk, first_epoch)

    @property
    def chunks(self) -> int:
        return self.slots // self.chunk_slots

    @property
    def words_at(self) -> int:
        return _page_up(PAGE + self.chunks * 8)

    @property
    def key_buckets(self) -> int:
        return -(-2 * self.slots // BUCKET_ENTRIES)

    @property
    def keys_at(self) -> int:
        return _page_up(self.words_at + self.slots * 8)

    @property
    def bodies_at(self) -> int:
        return _page_up(self.keys_at + self.key_buckets * BUCKET_ENTRIES * 8)

    @property
    def body_bytes(self) -> int:
        return META_BYTES + 2 * self.slot_bytes

    @property
    def size(self) -> int:
        return self.bodies_at + self.slots * self.body_bytes

    def is_spooled(self, body: bytes | mmap, at: int = 0) -> bool:
        """Tell, by the meta at *at*, whether a payload or result was too large for its slot."""
        lengths: tuple[int, int] = _LENGTHS.unpack_from(body, at)
        return lengths[0] > self.slot_bytes or lengths[1] >> 1 > self.slot_bytes

    def chunk_at(self, chunk: int) -> int:
        return PAGE + chunk * 8

    def word_at(self, slot: int) -> int:
        return self.words_at + slot * 8

    def body_at(self, slot: int) -> int:
        return self.bodies_at + slot * self.body_bytes

    def header(self) -> bytes:
        """Return the bytes that the file begins with."""
        body = _HEADER.pack(
            MAGIC, VERSION, self.slots, self.slot_bytes, self.chunk_slots, self.first_epoch
        )
        return body + _CRC.pack(zlib.crc32(body))

    @classmethod
    def read(cls, head: bytes, file_bytes: int) -> Layout:
        """Return the geometry that a file's first bytes tell; raises Damaged."""
        if len(head) < _HEADER.size + _CRC.size:
            raise Damaged("it is too short")
        body = head[: _HEADER.size]
        magic, version, slots, slot_bytes, chunk_slots, first_epoch = _HEADER.unpack(body)
        if magic != MAGIC:
            raise Damaged("it is not an arena")
        if _CRC.unpack_from(head, _HEADER.size)[0] != zlib.crc32(body):
            raise Damaged("its header's checksum is wrong")
        if version != VERSION:
            raise Damaged(f"it is of version {version}, this procd reads {VERSION}")
        if not 0 < slots <= words.MAX_SLOTS or not chunk_slots or slots % chunk_slots:
            raise Damaged(f"it tells {slots} slots in chunks of {chunk_slots}")
        layout = cls(slots, slot_bytes, chunk_slots, first_epoch)
        if layout.size != file_bytes:
            raise Damaged(f"it has {file_bytes} bytes instead of {layout.size}")
        return layout


def _page_up(offset: int) -> int:
    return (offset + PAGE - 1) & ~(PAGE - 1)


def owner_word(row: int, incarnation: int) -> int:
    """Return the chunk table's word for a process; never NOBODY nor ORPHAN."""
    return incarnation << 16 | row << 1 | 1 if incarnation else NOBODY


def owner_of(word: int) -> tuple[int, int]:
    """Return row and incarnation of an owner word."""
    return word >> 1 & words.MAX_ROWS - 1, word >> 16


NAMED, DURABLE = 1, 2  # flags of a Meta; more in ipc.terms
STATES = bytes(byte & words.STATE_MASK for byte in range(256))  # by a word's lowest byte
OPEN, SETTLED, REJECTED = 0, 1, 2  # the ledger's word: nothing; it is over, and on disk; no room


class Meta(NamedTuple):
    """What stands beside a payload; written before the task is accepted, never after.

    The task runs again should its process die, so nothing of it may be half rewritten.
    """

    src_row: int  # the dispatcher: its row ...
    src_incarnation: int  # ... and which process in that row
    src_worker_id: int
    dst_worker_id: int  # -1 = any
    flags: int
    priority: int
    payload_bytes: int
    accepted_at: float  # wall clock, for people
    task_id: int = 0  # of one that is in the arena again; 0 = its token
    seal: int = 0  # see seal()
    ledger: int = OPEN

    def pack(self) -> bytes:
        return META.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> Meta:
        return cls(*META.unpack_from(data))


# A Meta's up to its seal, quicker made than one.
MetaValues = tuple[int, int, int, int, int, int, int, float, int]


BROKEN = bytes(SEAL.size)  # the seal of a task that is over: damage to its word runs it no more


def seal(head: bytes, fixed: bytes, payload: bytes, token: int) -> int:
    """Return what binds a task to one use of one slot: damage runs no wrong task.

    *head* is its meta up to SEAL_AT; *fixed* what of its terms never changes, if it has any.
    """
    sealed = zlib.crc32(head, (token ^ token >> 32) & 0xFFFF_FFFF)
    return zlib.crc32(payload, zlib.crc32(fixed, sealed) if fixed else sealed)


def flags_of(body: bytes | mmap, at: int = 0) -> int:
    """Return the flags in the meta at *at*."""
    flags: int = _OWED.unpack_from(body, at)[0]
    return flags


def is_owed(body: bytes | mmap, at: int = 0) -> bool:
    """Tell, by the meta at *at*, whether the ledger has yet to note that a done task is over."""
    flags, word = _OWED.unpack_from(body, at)
    return bool(flags & DURABLE) and word == OPEN


def result_word(result_bytes: int, *, failed: bool) -> int:
    """Return the word that tells of a result."""
    return result_bytes << 1 | failed


def result_of(word: int) -> tuple[int, bool]:
    """Return a result's length and whether it is a failure."""
    return word >> 1, bool(word & 1)
