"""How SysV queues come and go: keys, removal, signals, rights and limits."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import Iterator

import pytest

from procd.errors import MessageTooBig
from procd.linux import sysv
from procd.linux.sysv import (
    MessageQueue,
    QueueDenied,
    QueueError,
    QueueExists,
    QueueFull,
    QueueGone,
)
from tests.kernel import queues
from tests.kernel.forked import Say, as_nobody, forked, needs_root, outcome


@pytest.fixture(autouse=True)
def _no_queue_is_left() -> Iterator[None]:
    with queues.no_queue_left():
        yield


@pytest.fixture(name="queue")
def made_queue() -> Iterator[MessageQueue]:
    queue = MessageQueue.create()
    yield queue
    queue.remove()


# ---------------------------------------------------------------- keys and lives


def test_a_fresh_queue_has_an_unpredictable_key_and_lets_in_nobody_else() -> None:
    made = [MessageQueue.create() for _ in range(5)]
    try:
        assert len({queue.key for queue in made}) == 5
        assert all(0 < queue.key < 2**31 for queue in made)
        assert all(queue.mode == 0o600 for queue in made)
        assert all(queue.owner_uid == queue.creator_uid == os.geteuid() for queue in made)
    finally:
        for queue in made:
            queue.remove()


def test_a_taken_key_is_not_taken_over_by_a_fresh_queue(
    queue: MessageQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter([queue.key - 1, queue.key - 1, secrets.randbelow(2**31 - 1)])
    monkeypatch.setattr(secrets, "randbelow", lambda _limit: next(drawn))
    other = MessageQueue.create()
    other.remove()
    assert other.key != queue.key
    assert queue.messages == 0


def test_creating_a_key_that_exists_is_refused_with_its_name(queue: MessageQueue) -> None:
    with pytest.raises(QueueExists, match=sysv.label(queue.key)):
        MessageQueue.create_key(queue.key)


def test_opening_a_key_that_does_not_exist_is_refused_with_its_name() -> None:
    key = queues.free_key()
    with pytest.raises(QueueGone, match=sysv.label(key)):
        MessageQueue.open(key)


def test_a_key_may_be_written_signed_or_unsigned() -> None:
    queue = MessageQueue.create_key(queues.free_key() - 2**31 - 1)
    try:
        assert queue.key < 0
        assert MessageQueue.open(queue.key + 2**32).id == queue.id
    finally:
        queue.remove()


@pytest.mark.parametrize("key", [0, 2**32, -(2**31) - 1])
def test_a_key_that_is_none_is_refused(key: int) -> None:
    # sysv_ipc would cut 2**32 down to 0, which is a new private queue at each call.
    with pytest.raises(ValueError, match="key"):
        MessageQueue.create_key(key)


def test_a_removed_queue_is_gone_for_everybody(queue: MessageQueue) -> None:
    other = MessageQueue.open(queue.key)
    queue.remove()
    for call in (lambda: other.send(b"x"), other.receive, lambda: other.messages):
        with pytest.raises(QueueGone, match="removed by somebody"):
            call()
    other.remove()  # idempotent


def test_a_queue_made_again_under_the_key_is_not_the_old_one(queue: MessageQueue) -> None:
    old = MessageQueue.open(queue.key)
    queue.remove()
    again = MessageQueue.create_key(queue.key)
    try:
        for call in (lambda: old.send(b"x"), old.receive, lambda: old.send(b"x" * 8193)):
            with pytest.raises((QueueGone, MessageTooBig)):
                call()
        old.remove()
        assert again.messages == 0
    finally:
        again.remove()


def test_a_reader_asleep_in_the_kernel_wakes_when_the_queue_goes() -> None:
    queue = MessageQueue.create()

    def body(say: Say) -> None:
        say("ready")
        queue.receive(block=True)

    with forked(body) as child:
        assert child.line() == "ready"
        queue.remove()
        assert child.line().startswith("QueueGone")


def test_a_signal_is_handled_during_a_blocking_call_which_then_goes_on(
    queue: MessageQueue,
) -> None:
    def body(say: Say) -> object:
        signal.signal(signal.SIGUSR1, lambda *_: say("handled"))
        say("ready")
        return queue.receive(block=True)

    with forked(body) as child:
        assert child.line() == "ready"
        handled = ""
        while not handled:  # one that comes before the wait begins is not seen: hence again
            os.kill(child.pid, signal.SIGUSR1)
            with contextlib.suppress(TimeoutError):
                handled = child.line(0.05)
        queue.send(b"at last")
        line = handled
        while line == "handled":
            line = child.line()
        assert line == "(b'at last', 1)"


# ---------------------------------------------------------------- rights and limits


@needs_root
def test_another_user_is_denied_by_the_mode(queue: MessageQueue) -> None:
    key = queue.key
    said = outcome(as_nobody(lambda: MessageQueue.open(key)))
    assert said.startswith("QueueDenied")
    assert sysv.label(key) in said
    for call in (lambda: queue.send(b"x"), queue.receive, lambda: queue.messages, queue.remove):
        assert outcome(as_nobody(call)).startswith("QueueDenied")


@needs_root
def test_who_may_only_write_can_open_to_write() -> None:
    queue = MessageQueue.create(0o622)

    def body() -> object:
        handle = MessageQueue.open(queue.key, 0o200)
        sent = 0
        try:
            while True:
                handle.send(b"x" * 1000)
                sent += 1
        except QueueFull:
            return sent

    try:
        assert outcome(as_nobody(lambda: MessageQueue.open(queue.key))).startswith(
            QueueDenied.__name__
        )
        assert outcome(as_nobody(body)) == "16"
    finally:
        queue.remove()


@needs_root
def test_no_room_for_a_queue_names_the_limit() -> None:
    def body() -> object:
        queues.set_limit("msgmni", 1)
        MessageQueue.create()
        try:
            return MessageQueue.create()
        except QueueError as error:
            return type(error).__name__, "kernel.msgmni" in str(error)

    assert outcome(queues.in_own_namespace(body)) == repr(("QueueError", True))


@needs_root
def test_another_ipc_namespace_does_not_see_the_queue(queue: MessageQueue) -> None:
    said = outcome(queues.in_own_namespace(lambda: MessageQueue.open(queue.key)))
    assert said.startswith("QueueGone")
