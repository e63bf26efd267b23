"""Messages that no honest program sends: valid ones, damaged; and hostile ones, whole."""

from __future__ import annotations

import random
from collections.abc import Sequence

from procd.ipc.foreign import envelope, php
from procd.ipc.foreign.codec import CODECS
from procd.ipc.foreign.envelope import Envelope, Status
from procd.ipc.foreign.swoole import Flag, TaskMessage, TmpFile, build

REPLY_TYPE = 2**22 + 5
MOST_BYTES = 2_000

# What serialize() could be made to say: lengths and nesting that cannot be, references, objects.
_PHP = (
    b"a:999999999:{i:0;i:1;}",
    b's:99999999999999999999:"x";',
    b'O:8:"stdClass":0:{}',
    b'C:3:"Foo":5:{hello}',
    b"a:1:{i:0;R:1;}",
    b"a:1:{i:0;" * 150 + b"N;" + b"}" * 150,
    b"d:1e999999;",
    b"i:99999999999999999999999;",
)


class Mutator:
    """next() gives one message and its type; *paths* are files that nobody may have read."""

    def __init__(self, rng: random.Random, paths: Sequence[bytes]) -> None:
        self._rng = rng
        self._seeds = [
            *(php.dump([1, {"a": "b"}, None, 2.5]), b'{"a": [1, 2, {"b": null}]}', b"plain text"),
            CODECS["msgpack"].encode({"n": [1, "x" * 40]}),
            *_PHP,
            *(self._task(b"x" * 20, flags, size) for flags in (0, 4, 0x84) for size in (12, 40)),
            *(self._task(php.dump({"n": 7}), Flag.SERIALIZE, size) for size in (12, 40)),
            *(self._envelope(codec, status) for codec in envelope.FORMATS for status in Status),
        ]
        self._files = [
            self._task(TmpFile(path, length), Flag.TMPFILE | flags, size)
            for path in paths
            for length in (5, 0, 2**31 - 1)
            for flags in (0, Flag.SERIALIZE)
            for size in (12, 40)
        ]

    @staticmethod
    def _task(body: bytes | TmpFile, flags: int, header_bytes: int) -> bytes:
        return build(TaskMessage(1, body, flags), header_bytes)

    @staticmethod
    def _envelope(codec: str, status: Status) -> bytes:
        body = CODECS[codec].encode(b"hello" if codec == "raw" else "hello")
        return envelope.build(Envelope(codec, status, REPLY_TYPE, 5, body))

    def next(self) -> tuple[bytes, int]:
        """Return bytes, at least one, and a type that the ingress takes."""
        rng = self._rng
        kind = rng.random()
        if kind < 0.1:
            data = bytearray(rng.randbytes(rng.randint(1, 300)))
        elif kind < 0.2:
            data = bytearray(rng.choice(self._files))
        else:
            data = bytearray(rng.choice(self._seeds))
        if kind >= 0.15:  # half of the files come as they are
            self._damage(data)
        mtype = rng.choice((1, 3, 4, 10, rng.randint(1, 2**22), 2**22))
        return bytes(data[:MOST_BYTES]) or b"\0", mtype

    def _damage(self, data: bytearray) -> None:
        rng = self._rng
        for _ in range(rng.randint(0, 4)):
            place = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[place] = rng.randrange(256)
                case 1:
                    data[place] ^= 1 << rng.randrange(8)
                case 2:  # a length or a count somewhere, perhaps
                    data[place : place + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\0\0\0\x80"))
                case 3:
                    data[place:place] = rng.choice(self._seeds)[: rng.randint(1, 40)]
        if rng.random() < 0.15:
            del data[rng.randrange(1, len(data) + 1) :]
