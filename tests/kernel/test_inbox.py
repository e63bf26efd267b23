"""Inboxes: full, gone and too big are said to the sender, and hints pass when messages wait."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.errors import InboxFull
from procd.ipc import inbox
from procd.ipc.inbox import MAX_MESSAGE_BYTES, Gone, Hint, Inbox, Post
from tests.kernel.arenas import posting
from tests.kernel.forked import forked, outcome, wait_for_ever

ROW, INCARNATION = 3, 17
QUEUE_LENGTH = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 1


@pytest.fixture(name="box")
def an_inbox(tmp_path: Path) -> Iterator[Inbox]:
    box = Inbox(tmp_path, ROW, INCARNATION)
    yield box
    box.close()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(name="post")
def a_post(tmp_path: Path) -> Iterator[Post]:
    with posting(tmp_path) as post:
        yield post


def read(box: Inbox) -> list[bytes]:
    found = []
    while (datagram := box.receive()) is not None:
        found.append(bytes(datagram))
    return found


def fill(post: Post, datagram: bytes) -> int:
    """Send until it is full; how many went."""
    for count in itertools.count():
        try:
            post.send(ROW, INCARNATION, datagram)
        except InboxFull:
            return count
    raise AssertionError


def test_what_is_sent_arrives_whole_and_in_order(box: Inbox, post: Post) -> None:
    sent = [inbox.hint(1), inbox.message(0, "x" * 1000), inbox.addressed(2)]
    for datagram in sent:
        post.send(ROW, INCARNATION, datagram)
    assert read(box) == sent
    assert box.receive() is None


def test_another_process_reaches_it(box: Inbox, post: Post) -> None:
    outcome(lambda: post.send(ROW, INCARNATION, inbox.hint(9)))
    assert read(box) == [inbox.hint(9)]


def test_the_largest_message_passes(box: Inbox, post: Post) -> None:
    largest = inbox.message(0, b"x" * (MAX_MESSAGE_BYTES - 10))
    assert len(largest) > MAX_MESSAGE_BYTES - 5
    post.send(ROW, INCARNATION, largest)
    assert read(box) == [largest]


def test_a_full_inbox_is_said_and_takes_again_what_was_read(box: Inbox, post: Post) -> None:
    for number in range(QUEUE_LENGTH):
        post.send(ROW, INCARNATION, inbox.hint(number))
    for _ in range(3):
        with pytest.raises(InboxFull, match="has not read yet"):
            post.send(ROW, INCARNATION, inbox.hint(99))
    box.receive()
    post.send(ROW, INCARNATION, inbox.hint(100))
    assert len(read(box)) == QUEUE_LENGTH


def test_hints_still_pass_when_unread_messages_fill_their_sender(box: Inbox, post: Post) -> None:
    large = inbox.message(0, b"x" * 190_000)
    count = fill(post, large)
    assert 0 < count < QUEUE_LENGTH - 1  # the sender's buffer is full, not the inbox
    post.send(ROW, INCARNATION, inbox.hint(7))
    assert read(box)[-1] == inbox.hint(7)


def test_a_full_inbox_is_no_matter_to_another_one(tmp_path: Path, box: Inbox, post: Post) -> None:
    other = Inbox(tmp_path, 4, 18)
    assert fill(post, inbox.hint(1)) == QUEUE_LENGTH
    post.send(4, 18, inbox.hint(2))
    assert read(other) == [inbox.hint(2)]
    other.close()
    assert len(read(box)) == QUEUE_LENGTH


def test_nobody_there_is_gone(tmp_path: Path, post: Post) -> None:
    with pytest.raises(Gone, match="row 3, incarnation 17"):
        post.send(ROW, INCARNATION, inbox.hint(1))

    def body(say: object) -> None:
        assert callable(say)
        Inbox(tmp_path, ROW, INCARNATION)
        wait_for_ever(say)

    with forked(body) as child:
        assert child.line() == "ready"
        child.kill()
    path = inbox.path_of(tmp_path, ROW, INCARNATION)
    assert os.path.exists(path)  # the dead leave it, the master removes it
    with pytest.raises(Gone):
        post.send(ROW, INCARNATION, inbox.hint(1))
    inbox.remove(path)
    inbox.remove(path)  # twice is no error


def test_another_incarnation_of_the_row_gets_nothing(box: Inbox, post: Post) -> None:
    with pytest.raises(Gone):
        post.send(ROW, INCARNATION + 1, inbox.hint(1))
    assert read(box) == []


def test_an_empty_datagram_is_one_and_no_message(box: Inbox, post: Post) -> None:
    post.send(ROW, INCARNATION, b"")
    assert read(box) == [b""]


def test_a_datagram_is_valid_until_the_next(box: Inbox, post: Post) -> None:
    for token in (1, 2):
        post.send(ROW, INCARNATION, inbox.hint(token))
    first = box.receive()
    assert first is not None
    assert inbox.parse(first) == Hint(1)
    second = box.receive()
    assert second is not None
    assert inbox.parse(second) == Hint(2)
