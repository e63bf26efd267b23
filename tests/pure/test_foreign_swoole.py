"""The two Swoole headers, byte for byte; and any bytes at all."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from procd.ipc.foreign import swoole
from procd.ipc.foreign.swoole import Flag, TaskMessage, TmpFile, build, inline_max, parse, path_max
from procd.ipc.wire import Undecodable

HELLO_OLD = bytes.fromhex("01000000 0f00 0000 07 00 0400") + b"Hello from PHP!"
HELLO_NEW = (
    bytes.fromhex("0100000000000000 0000000000000000 0f000000 0000 07 00 0000 8400 00000000")
    + bytes.fromhex("000000000000f83f")  # 1.5
    + b"Hello from PHP!"
)

paths = st.binary(min_size=1, max_size=147).filter(lambda path: b"\0" not in path)
old_messages = st.builds(
    TaskMessage,
    task_id=st.integers(-(2**31), 2**31 - 1),
    body=st.binary(max_size=300),
    flags=st.integers(0, 2**16 - 1).map(lambda flags: flags & ~Flag.TMPFILE),
    src_worker_id=st.integers(-(2**15), 2**15 - 1),
    event=st.sampled_from([7, 8]),
)
old_files = st.builds(
    replace,
    old_messages,
    body=st.builds(TmpFile, paths, st.integers(0, 2**31 - 1)),
    flags=st.integers(0, 2**16 - 1).map(lambda flags: flags | Flag.TMPFILE),
)
messages = old_messages | old_files


def test_the_texts_of_swooles_manual_are_these_bytes() -> None:
    message = TaskMessage(1, b"Hello from PHP!")
    assert build(message, 12) == HELLO_OLD
    assert parse(HELLO_OLD) == (message, 12)
    message = TaskMessage(1, b"Hello from PHP!", Flag.NONBLOCK | Flag.NOREPLY, time=1.5)
    assert build(message, 40) == HELLO_NEW
    assert parse(HELLO_NEW) == (message, 40)


def test_data_in_a_file_is_named_as_swoole_names_it() -> None:
    file = TmpFile(b"/tmp/swoole.task.abc", 9000)
    message = TaskMessage(2, file, Flag.NONBLOCK | Flag.TMPFILE | Flag.SERIALIZE)
    assert build(message, 12) == (
        bytes.fromhex("02000000 9800 0000 07 00 0700 28230000") + file.path + b"\0"
    )
    new = build(message, 40)
    assert new[:40] == struct.pack("<qQIhBBHHId", 2, 0, 264, 0, 7, 0, 0, 7, 0, 0.0)
    assert new[40:] == struct.pack("<Q256s", 9000, file.path)
    for data, size in ((build(message, 12), 12), (new, 40)):
        assert parse(data) == (message, size)


@given(messages)
def test_what_is_built_with_12_bytes_comes_back(message: TaskMessage) -> None:
    assert parse(build(message, 12), 12) == (message, 12)


@given(
    messages,
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**64 - 1),
    st.floats(allow_nan=False),
)
def test_what_is_built_with_40_bytes_comes_back(
    message: TaskMessage, task_id: int, message_id: int, time: float
) -> None:
    message = replace(message, task_id=task_id, message_id=message_id, time=time)
    assert parse(build(message, 40), 40) == (message, 40)
    assert parse(build(message, 40)) == (message, 40)


@given(old_messages.filter(lambda message: message.event == 7 and not message.flags & ~0x87))
def test_a_short_header_is_told_from_a_long_one(message: TaskMessage) -> None:
    assert parse(build(message, 12)) == (message, 12)


@given(st.binary(max_size=400), st.sampled_from([None, 12, 40]))
@example(b"", None)
@example(HELLO_OLD[:12], 12)
@example(HELLO_NEW[:40], 40)
@example(bytes.fromhex("01000000 9800 0000 07 00 0500"), 12)  # a file, and no name
@example(bytes.fromhex("01000000 9800 0000 07 00 0500 ffffffff") + b"/x\0", 12)
def test_random_bytes_are_a_task_or_undecodable(data: bytes, size: int | None) -> None:
    reading(data, size)


@given(messages, st.data(), st.sampled_from([12, 40]))
def test_damaged_tasks_are_a_task_or_undecodable(
    message: TaskMessage, data: st.DataObject, size: int
) -> None:
    built = bytearray(build(message, size))
    for _ in range(data.draw(st.integers(1, 4))):
        built[data.draw(st.integers(0, len(built) - 1))] = data.draw(st.integers(0, 255))
    reading(bytes(built), None)
    reading(bytes(built[: data.draw(st.integers(0, len(built)))]), size)


def reading(data: bytes, size: int | None) -> None:
    with contextlib.suppress(Undecodable):
        parse(data, size)


@pytest.mark.parametrize("event", [0, 2, 4, 5, 16, 255])
def test_events_that_steer_a_server_are_no_tasks(event: int) -> None:
    damaged = bytearray(HELLO_OLD)
    damaged[8] = event
    with pytest.raises(Undecodable, match=f"event {event}, not 7"):
        parse(bytes(damaged), 12)


def test_a_length_that_lies_is_undecodable() -> None:
    for data, place in ((HELLO_OLD, 4), (HELLO_NEW, 16)):
        for change in (-1, 1):
            damaged = bytearray(data)
            damaged[place] += change
            with pytest.raises(Undecodable, match="and 15 follow"):
                parse(bytes(damaged))


@pytest.mark.parametrize("size", [12, 40])
def test_what_does_not_fit_its_field_is_a_value_error(size: int) -> None:
    flags = Flag.TMPFILE
    for wrong in (
        TaskMessage(2**63, b""),
        TaskMessage(1, b"", src_worker_id=2**15),
        TaskMessage(1, b"", flags=Flag.TMPFILE),
        TaskMessage(1, TmpFile(b"/x", 1), flags=0),
        TaskMessage(1, TmpFile(b"", 1), flags=flags),
        TaskMessage(1, TmpFile(b"/a\0b", 1), flags=flags),
        TaskMessage(1, TmpFile(b"/x", -(2**63)), flags=flags),
        TaskMessage(1, TmpFile(b"x" * (path_max(size) + 1), 1), flags=flags),
    ):
        with pytest.raises(ValueError, match=r"."):
            build(wrong, size)
    assert build(TaskMessage(1, TmpFile(b"x" * path_max(size), 1), flags=flags), size)


def test_more_than_64_kib_has_no_place_in_the_short_header() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        build(TaskMessage(1, b"x" * 65536), 12)
    assert parse(build(TaskMessage(1, b"x" * 65536), 40))[1] == 40


def test_another_header_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="12 or 40"):
        build(TaskMessage(1, b""), 16)
    with pytest.raises(ValueError, match="12 or 40"):
        parse(HELLO_OLD, 16)


def test_the_limits_are_those_of_swooles_own_clients() -> None:
    assert (inline_max(12), inline_max(40)) == (8179, 8151)
    assert (path_max(12), path_max(40)) == (147, 255)
    assert swoole.OLD_BYTES + inline_max(12) < 8192


def test_the_bytes_in_the_manual_are_these() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "interop.md").read_text()
    flat = " ".join(manual.split())
    assert HELLO_OLD.hex(" ") in flat
    assert HELLO_NEW.hex(" ") in flat
