"""What a message from a foreign program means: bytes to a value, or why it is refused. Pure.

understand() is given whatever any program sent. In this order it is, by itself (codec `auto`):

1. a request in an envelope of ours (envelope.py);
2. a task with one of Swoole's headers (swoole.py), whose body is PHP's serialize() if it says so;
3. PHP's serialize(), if all of it has that shape; then what it cannot have is refused, not passed
   on as text;
4. JSON, if it begins and ends as an object or array and is one;
5. MessagePack, if it begins as a map or array, is one to the last byte, and is no text;
6. text where it is UTF-8, else bytes.

With a codec named, it is that format, in an envelope or bare; `raw` is never looked into.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from procd.ipc import wire
from procd.ipc.foreign import envelope, jsontext, php, swoole
from procd.ipc.foreign.codec import CODECS
from procd.ipc.foreign.envelope import Reply, Status
from procd.ipc.foreign.swoole import Flag, TmpFile
from procd.ipc.wire import Undecodable

LARGEST_TASK_TYPE = 2**22  # the kernel's largest pid; the types above are those of answers

Strings = Literal["auto", "bytes"]

# What serialize() writes, by its two ends.
_PHP = re.compile(
    rb"N;|b:[01];|i:[+-]?[0-9]+;|d:[^;]{1,40};|[rR]:[0-9]+;|[sS]:[0-9]+:\".*\";"
    rb"|[aOC]:[+0-9][^\n]*\}|E:[0-9]+:\".*\";",
    re.DOTALL,
)
_MAPS_AND_ARRAYS = frozenset((*range(0x80, 0xA0), *range(0xDC, 0xE0)))


class Reason(StrEnum):
    """Why a message was refused."""

    EMPTY = "empty"  # it had no bytes
    SYSTEM = "system"  # an order of Swoole's, not a task
    UNDECODABLE = "undecodable"
    REPLY_TYPE = "reply_type"  # answers have types above LARGEST_TASK_TYPE
    TOO_BIG = "too_big"
    NO_TMPDIR = "no_tmpdir"  # its data is in a file, and there is no task_tmpdir
    FILE = "file"  # that file is none that may be read
    FAULT = "fault"  # procd's own


class Refused(Exception):
    """A message that is no task; the text says why."""

    def __init__(self, reason: Reason, why: str) -> None:
        super().__init__(why)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Rules:
    """How messages are to be read: message_queue_codec, _strings and _reply_type."""

    codec: str = "auto"
    strings: Strings = "auto"
    reply_type: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One task. Where *file* is there, its content has yet to be given to *decode*."""

    value: object
    reply: Reply | None = None
    file: TmpFile | None = None
    decode: Callable[[bytes], object] = bytes  # raises Refused


def understand(data: bytes, rules: Rules) -> Request:
    """Return what was asked for; raises Refused, and nothing else whatever the bytes are."""
    if not data:
        raise Refused(Reason.EMPTY, "a message without any bytes")
    try:
        if rules.codec == "raw":
            return _bare(data, "raw", rules)
        if data.startswith(envelope.MAGIC):
            return _from_envelope(data, rules)
        if rules.codec != "auto":
            return _bare(data, rules.codec, rules)
        if 0 not in data:  # which both of Swoole's headers have: most messages are none
            return _bare(data, _recognised(data), rules)
        try:
            return _from_swoole(data, rules)
        except swoole.OtherEvent as other:
            raise Refused(Reason.SYSTEM, str(other)) from None
        except Undecodable:
            return _bare(data, _recognised(data), rules)
    except Undecodable as error:
        raise Refused(Reason.UNDECODABLE, str(error)) from None


def _from_envelope(data: bytes, rules: Rules) -> Request:
    found = envelope.parse(data)
    if found.status is not Status.REQUEST:
        raise Undecodable("an answer, where requests are read")
    reply = None
    if found.reply_type:
        reply = Reply(_checked(found.reply_type), found.codec, found.number)
    return Request(_decoded(found.body, found.codec, rules.strings), reply)


def _checked(reply_type: int) -> int:
    if reply_type <= LARGEST_TASK_TYPE:
        raise Refused(
            Reason.REPLY_TYPE,
            f"an answer of type {reply_type}: they have types above {LARGEST_TASK_TYPE}",
        )
    return reply_type


def _from_swoole(data: bytes, rules: Rules) -> Request:
    task, header_bytes = swoole.parse(data)
    reply = None
    if rules.reply_type is not None and not task.flags & Flag.NOREPLY:
        reply = Reply(rules.reply_type, "php", swoole=(task.task_id, header_bytes))
    codec = "php" if task.is_serialized else "bare"

    def decode(body: bytes) -> object:
        try:
            return _decoded(body, codec, rules.strings)
        except Undecodable as error:
            raise Refused(Reason.UNDECODABLE, str(error)) from None

    if isinstance(task.body, TmpFile):
        return Request(None, reply, task.body, decode)
    return Request(decode(task.body), reply)


def _bare(data: bytes, codec: str, rules: Rules) -> Request:
    reply = None
    if rules.reply_type is not None:
        reply = Reply(rules.reply_type, "text" if codec == "bare" else codec)
    return Request(_decoded(data, codec, rules.strings), reply)


def _recognised(data: bytes) -> str:
    """Return which format bytes without any header are in."""
    if _PHP.fullmatch(data):
        return "php"
    if data[:1] + data[-1:] in (b"{}", b"[]") and _is(jsontext.load, data):
        return "json"
    # No such byte begins UTF-8, or none that goes on as these do.
    if data[0] in _MAPS_AND_ARRAYS and not _is(bytes.decode, data) and _is(wire.unpack, data):
        return "msgpack"
    return "bare"


def _is(load: Callable[[bytes], object], data: bytes) -> bool:
    try:
        load(data)
    except ValueError:  # Undecodable is one, and so is what bytes.decode raises
        return False
    return True


def _decoded(body: bytes, codec: str, strings: Strings) -> object:
    """Return the value; *codec* `bare` is text where it is UTF-8. Raises Undecodable."""
    if codec == "php":
        return php.load(body, strings)
    if codec != "bare":
        return CODECS[codec].decode(body)
    if strings == "auto":
        try:
            return body.decode()
        except UnicodeDecodeError:
            pass
    return body
