"""How a foreign program asks for an answer, and what it gets: bytes to values and back. Pure.

The envelope, 24 bytes before the body, little-endian, struct '<4sBBBBqQ':

    0   4 bytes  c1 50 44 51: no text, JSON, MessagePack or serialize() begins like that
    4   u8       1, the version
    5   u8       the body's format: 0 raw, 1 text, 2 json, 3 msgpack, 4 php
    6   u8       0 a request, 1 a result, 2 a failure (the body is its text)
    7   u8       0
    8   i64      request: the type of message that the answer is to have; 0 = send none
    16  u64      the sender's own number; the answer has the same

A request in an envelope is answered in one. A Swoole task is answered by its own header with the
same task id, SERIALIZE where the result is no text, FAILED where it is the text of a failure.
Whoever sent neither gets the bare result; a failure is then {"error": text}, or `error: text`
where the request was text or raw bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from procd.ipc.foreign import jsontext, php, swoole
from procd.ipc.foreign.codec import CODECS
from procd.ipc.wire import Undecodable

MAGIC = b"\xc1PDQ"
VERSION = 1
FORMATS = ("raw", "text", "json", "msgpack", "php")  # by their numbers
SWOOLE_FAILED = 256  # a flag that Swoole does not have

_HEADER = struct.Struct("<4sBBBBqQ")
HEADER_BYTES = _HEADER.size


class Status(IntEnum):
    """What an envelope holds."""

    REQUEST = 0
    RESULT = 1
    FAILURE = 2


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message in an envelope."""

    codec: str
    status: Status
    reply_type: int
    number: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """Where an answer goes and how it is written.

    *codec* is one of FORMATS. At most one of *number* (of the request's envelope) and *swoole*
    (task id and bytes of the header) is there.
    """

    mtype: int
    codec: str
    number: int | None = None
    swoole: tuple[int, int] | None = None


def build(envelope: Envelope) -> bytes:
    """Return the message's bytes."""
    header = _HEADER.pack(
        *(MAGIC, VERSION, FORMATS.index(envelope.codec), envelope.status, 0),
        *(envelope.reply_type, envelope.number),
    )
    return header + envelope.body


def parse(data: bytes) -> Envelope:
    """Take a message that begins with MAGIC apart; raises Undecodable."""
    if len(data) < HEADER_BYTES:
        raise Undecodable(f"no envelope: {len(data)} bytes, its header has {HEADER_BYTES}")
    magic, version, codec, status, zero, reply_type, number = _HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise Undecodable(f"no envelope of version {VERSION}: {data[:5].hex(' ')}")
    if codec >= len(FORMATS) or status not in tuple(Status) or zero:
        raise Undecodable(f"no envelope: bytes 5 to 7 are {data[5:8].hex(' ')}")
    return Envelope(FORMATS[codec], Status(status), reply_type, number, data[HEADER_BYTES:])


def answer(reply: Reply, value: object, failure: str | None) -> bytes:
    """Return the answer to a request: *value*, or the text of its *failure*.

    A value that the format cannot have is a failure that says so.
    """
    if failure is None:
        try:
            return _result(reply, value)
        except TypeError as error:
            failure = f"the task's result cannot be sent: {error}"
    return _failure(reply, failure.encode("utf-8", "backslashreplace").decode())


def _result(reply: Reply, value: object) -> bytes:
    if reply.swoole is not None:
        if isinstance(value, str | bytes):
            return _swoole(reply.swoole, _as_text(value), 0)
        return _swoole(reply.swoole, php.dump(value), swoole.Flag.SERIALIZE)
    body = _as_text(value) if reply.codec in ("raw", "text") else CODECS[reply.codec].encode(value)
    if reply.number is None:
        return body
    return build(Envelope(reply.codec, Status.RESULT, 0, reply.number, body))


def _failure(reply: Reply, text: str) -> bytes:
    if reply.swoole is not None:
        return _swoole(reply.swoole, text.encode(), SWOOLE_FAILED)
    is_text = reply.codec in ("raw", "text")
    if reply.number is not None:
        body = text.encode() if is_text else CODECS[reply.codec].encode(text)
        return build(Envelope(reply.codec, Status.FAILURE, 0, reply.number, body))
    return f"error: {text}".encode() if is_text else CODECS[reply.codec].encode({"error": text})


def _as_text(value: object) -> bytes:
    """Bytes and text as they are, everything else as JSON."""
    match value:
        case bytes():
            return value
        case str():
            try:
                return value.encode()
            except UnicodeEncodeError as error:
                raise TypeError(f"data: {error.reason}") from None
    return jsontext.dump(value)


def _swoole(to: tuple[int, int], body: bytes, flags: int) -> bytes:
    task_id, header_bytes = to
    try:
        return swoole.build(swoole.TaskMessage(task_id, body, flags, -1), header_bytes)
    except ValueError:  # the short header knows lengths of 16 bits
        raise TypeError(f"data: {len(body)} bytes are too many for its header") from None
