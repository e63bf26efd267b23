"""SysV queues through sysv_ipc, with the kernel's and the extension's surprises."""

from __future__ import annotations

import contextlib
import ctypes
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import sysv_ipc

from procd.errors import MessageTooBig
from procd.linux import sysv
from procd.linux.sysv import (
    MessageQueue,
    QueueEmpty,
    QueueFull,
)
from tests.kernel import queues
from tests.kernel.forked import Say, forked, needs_root, outcome, wait_for_ever


@pytest.fixture(autouse=True)
def _no_queue_is_left() -> Iterator[None]:
    with queues.no_queue_left():
        yield


@pytest.fixture(name="queue")
def made_queue() -> Iterator[MessageQueue]:
    queue = MessageQueue.create()
    yield queue
    queue.remove()


def fill(queue: MessageQueue, data: bytes = b"12345678") -> int:
    count = 0
    with contextlib.suppress(QueueFull):
        while True:
            queue.send(data)
            count += 1
    return count


def send_long_type(queue: MessageQueue, mtype: int, data: bytes) -> None:
    """As a program in C can: sysv_ipc takes an int where the kernel has a long."""
    message = struct.pack("@l", mtype) + data
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.msgsnd(queue.id, message, ctypes.c_size_t(len(data)), 0) == 0


# ---------------------------------------------------------------- messages


def test_a_message_comes_out_as_it_went_in(queue: MessageQueue) -> None:
    queue.send(b"one\0two", 5)
    assert queue.messages == 1
    assert queue.receive() == (b"one\0two", 5)
    assert queue.messages == 0


def test_an_empty_message_is_one(queue: MessageQueue) -> None:
    queue.send(b"")
    assert queue.receive() == (b"", 1)


def test_types_are_chosen_as_msgrcv_has_it(queue: MessageQueue) -> None:
    for mtype in (3, 2, 1, 2):
        queue.send(str(mtype).encode(), mtype)
    assert queue.receive(2)[1] == 2
    assert [queue.receive(-2)[1] for _ in range(2)] == [1, 2]  # lowest first: priorities
    with pytest.raises(QueueEmpty):
        queue.receive(-2)
    assert queue.receive(0)[1] == 3


def test_what_is_not_bytes_never_reaches_the_extension(queue: MessageQueue) -> None:
    wrong: list[Any] = [123, None, "text", "\ud800", bytearray(b"x"), memoryview(b"x"), [b"x"]]
    for data in wrong:
        with pytest.raises(TypeError, match="a message is bytes, not"):
            queue.send(data)
    assert queue.messages == 0


@pytest.mark.parametrize("mtype", [0, -1, 2**31, 2**63, -(2**63)])
def test_a_type_out_of_range_is_refused(queue: MessageQueue, mtype: int) -> None:
    with pytest.raises(ValueError, match=str(mtype)):
        queue.send(b"x", mtype)
    assert queue.messages == 0


def test_a_type_of_the_wrong_type_crashes_nothing(queue: MessageQueue) -> None:
    wrong: Any = "1"
    with pytest.raises(TypeError):
        queue.send(b"x", wrong)
    with pytest.raises(TypeError):
        queue.receive(wrong)


def test_a_foreign_type_beyond_31_bits_is_received_whole(queue: MessageQueue) -> None:
    send_long_type(queue, 2**31 + 5, b"x")
    assert queue.receive() == (b"x", 2**31 + 5)
    with pytest.raises(ValueError, match="no message type"):
        queue.receive(2**31 + 5)


def test_a_full_queue_says_so_and_names_itself(queue: MessageQueue) -> None:
    assert fill(queue) == queue.bytes_max // 8 == 2048
    with pytest.raises(QueueFull, match=f"{sysv.label(queue.key)} is full"):
        queue.send(b"12345678")


def test_an_empty_queue_says_so_and_names_itself(queue: MessageQueue) -> None:
    with pytest.raises(QueueEmpty, match=f"{sysv.label(queue.key)} holds no message of type any"):
        queue.receive()


def test_a_forked_child_uses_the_handle_of_its_parent(queue: MessageQueue) -> None:
    assert outcome(lambda: queue.send(b"from the child")) == "None"
    assert queue.receive() == (b"from the child", 1)


def test_a_message_is_gone_with_the_process_that_received_it(queue: MessageQueue) -> None:
    queue.send(b"token")

    def body(say: Say) -> None:
        say(queue.receive())
        wait_for_ever(say)

    with forked(body) as child:
        assert child.line() == "(b'token', 1)"
        child.kill()
    assert queue.messages == 0


# ---------------------------------------------------------------- sizes


def test_the_largest_message_goes_and_one_byte_more_does_not(queue: MessageQueue) -> None:
    largest = sysv.message_bytes_max()
    queue.send(b"x" * largest)
    with pytest.raises(MessageTooBig, match=f"{largest + 1} bytes .* kernel.msgmax is {largest}"):
        queue.send(b"x" * (largest + 1))
    assert len(queue.receive()[0]) == largest
    assert queue.messages == 0


def test_a_small_buffer_of_the_extension_leaves_the_message_at_the_head(
    queue: MessageQueue,
) -> None:
    handle = sysv_ipc.MessageQueue(queue.key)  # its default: 2,048 bytes
    queue.send(b"x" * 2049)
    for _ in range(2):
        with pytest.raises(OSError, match="too long"):
            handle.receive(block=False)
    assert queue.receive() == (b"x" * 2049, 1)


def test_an_oversize_message_is_received_and_no_poison_pill(
    queue: MessageQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if kernel.msgmax had been this when the handle was opened.
    monkeypatch.setattr(sysv, "message_bytes_max", lambda: 100)
    old = MessageQueue.open(queue.key)
    queue.send(b"x" * 8192)
    queue.send(b"next")
    assert old.receive() == (b"x" * 8192, 1)
    assert old.receive() == (b"next", 1)


@needs_root
def test_a_handle_follows_the_kernels_limit_up_and_down() -> None:
    def body() -> object:
        queues.set_limit("msgmax", 1000)
        queue, reader = MessageQueue.create_key(77), MessageQueue.open(77)
        queues.set_limit("msgmax", 5000)
        queue.send(b"x" * 5000)
        received = len(reader.receive()[0])
        queues.set_limit("msgmax", 2000)
        try:
            queue.send(b"x" * 2001)
        except MessageTooBig as error:
            return received, str(error)
        return received

    assert outcome(queues.in_own_namespace(body)) == repr(
        (5000, "2001 bytes are too many for queue 0x0000004d: kernel.msgmax is 2000")
    )


def test_what_an_empty_queue_cannot_hold_is_too_big_rather_than_full(queue: MessageQueue) -> None:
    sysv_ipc.MessageQueue(queue.key).max_size = 100
    queue.send(b"x" * 100)
    with pytest.raises(QueueFull):
        queue.send(b"x")
    with pytest.raises(MessageTooBig, match="101 bytes never fit"):
        queue.send(b"x" * 101)
