"""The channel: messages in order, descriptors handed over or closed, and nothing believed."""

from __future__ import annotations

import gc
import os
import socket
from array import array
from collections.abc import Iterator

import pytest

from procd.ipc import wire
from procd.ipc.channel import MAX_FDS, MAX_MESSAGE_BYTES, Channel, Closed, Packet
from procd.spawn.forkserver import send_pairs
from tests.kernel.forked import Say, forked, outcome, wait_for_ever

Ends = tuple[Channel, Channel]


@pytest.fixture(name="ends")
def master_and_process() -> Iterator[Ends]:
    """The master's end and the process's; no descriptor is left behind."""
    gc.collect()  # what an earlier test has left open is not this one's
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = Channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()
    assert len(os.listdir("/proc/self/fd")) == before


def raw(end: Channel, data: bytes, fds: list[int] | None = None) -> None:
    """Send what no Channel would."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
    end.socket.sendmsg([data], rights)


def test_messages_come_whole_and_in_order(ends: Ends) -> None:
    ours, theirs = ends
    assert ours.receive() is None
    for number in range(5):
        assert theirs.send("count", {"number": number})
    theirs.send("bare")
    found = [ours.receive() for _ in range(6)]
    assert found[:5] == [Packet("count", {"number": number}, ()) for number in range(5)]
    assert found[5] == Packet("bare", {}, ())
    assert ours.receive() is None


def test_descriptors_are_handed_over(ends: Ends) -> None:
    ours, theirs = ends
    reader, writer = os.pipe()
    assert ours.send("take", fds=[writer, reader])
    os.close(writer)
    os.close(reader)
    packet = theirs.receive()
    assert packet is not None
    os.write(packet.fds[0], b"through")
    assert os.read(packet.fds[1], 99) == b"through"
    for fd in packet.fds:
        os.close(fd)


def test_descriptors_that_were_handed_over_are_not_inherited_over_exec(ends: Ends) -> None:
    ours, theirs = ends
    assert ours.send("take", fds=[0])
    packet = theirs.receive()
    assert packet is not None
    is_inheritable = os.get_inheritable(packet.fds[0])
    os.close(packet.fds[0])
    assert not is_inheritable


def test_a_process_that_looks_for_a_message_does_not_wait_for_one(ends: Ends) -> None:
    _, theirs = ends
    with forked(lambda _say: repr(theirs.receive())) as child:
        assert child.line(timeout=0.3) == "None"


def test_as_many_descriptors_pass_as_a_process_may_need(ends: Ends) -> None:
    ours, theirs = ends
    assert ours.send("take", fds=[0] * MAX_FDS)
    packet = theirs.receive()
    assert packet is not None
    assert len(set(packet.fds)) == MAX_FDS
    for fd in packet.fds:
        os.close(fd)


BAD = [
    b"\xc1",
    wire.pack("text"),
    wire.pack(["kind"]),
    wire.pack(["kind", {}, 3]),
    wire.pack([1, {}]),
    wire.pack(["kind", []]),
    wire.pack({"kind": {}}),
    os.urandom(64) + b"\xc1",
]


@pytest.mark.parametrize("data", BAD, ids=range(len(BAD)))
def test_what_is_no_message_is_dropped_counted_and_its_descriptors_closed(
    ends: Ends, data: bytes
) -> None:
    """The fixture sees to the descriptors."""
    ours, theirs = ends
    raw(theirs, data, [0, 1])
    theirs.send("next")
    assert ours.receive() is None
    assert ours.bad == 1
    assert ours.receive() == Packet("next", {}, ())


def test_a_message_longer_than_allowed_is_refused_at_the_sender_and_dropped_here(
    ends: Ends,
) -> None:
    ours, theirs = ends
    with pytest.raises(ValueError, match=r"a channel message of .* bytes: big"):
        theirs.send("big", {"x": b"x" * MAX_MESSAGE_BYTES})
    raw(theirs, wire.pack(["big", {"x": b"x" * MAX_MESSAGE_BYTES}]), [0])
    assert ours.receive() is None
    assert ours.bad == 1


def test_more_descriptors_than_allowed_reach_nobody(ends: Ends) -> None:
    ours, theirs = ends
    raw(theirs, wire.pack(["many", {}]), [0] * (MAX_FDS + 20))
    packet = ours.receive()
    for fd in packet.fds if packet else ():
        os.close(fd)


def test_an_empty_message_is_not_the_end(ends: Ends) -> None:
    """The fixture sees to the descriptors."""
    ours, theirs = ends
    raw(theirs, b"", [0])
    theirs.send("alive")
    assert ours.receive() is None
    assert ours.bad == 1
    assert ours.receive() == Packet("alive", {}, ())


def test_the_end_comes_after_all_that_was_said(ends: Ends) -> None:
    ours, theirs = ends
    theirs.send("last words")
    theirs.close()
    assert ours.receive() == Packet("last words", {}, ())
    with pytest.raises(Closed):
        ours.receive()
    with pytest.raises(Closed):
        ours.receive()


def test_last_words_are_heard_also_of_one_who_had_not_read_its_orders(ends: Ends) -> None:
    ours, theirs = ends
    ours.send("log")
    theirs.send("failed", {"error": "Traceback ..."})
    theirs.close()
    assert ours.receive() == Packet("failed", {"error": "Traceback ..."}, ())


def test_kill_9_is_the_end(ends: Ends) -> None:
    ours, theirs = ends

    def body(say: Say) -> None:
        ours.close()
        theirs.send("up")
        wait_for_ever(say)

    with forked(body) as child:
        assert child.line() == "ready"
        theirs.close()
        child.kill()
        assert ours.receive(block=True) == Packet("up", {}, ())
        with pytest.raises(Closed):
            ours.receive(block=True)


def test_sending_to_who_has_gone_is_false_and_no_signal(ends: Ends) -> None:
    ours, theirs = ends
    theirs.close()
    assert not ours.send("hello")
    assert not ours.send("hello")


def test_the_master_is_not_held_up_by_who_does_not_read(ends: Ends) -> None:
    ours, theirs = ends
    count = 0
    while ours.send("order", {"x": b"x" * 100_000}):
        count += 1
    assert count >= 2
    assert theirs.receive() is not None
    assert ours.send("order")


def test_a_process_waits_until_the_master_has_read(ends: Ends) -> None:
    ours, theirs = ends

    def body(say: Say) -> object:
        say("begins")
        return sum(theirs.send("long", {"x": b"x" * 100_000}) for _ in range(50))

    with forked(body) as child:
        assert child.line() == "begins"
        for _ in range(50):
            packet = ours.receive(block=True)
            while packet is None:  # the master's end never blocks
                packet = ours.receive()
            assert packet.kind == "long"
        assert child.line() == "50"


def test_a_file_name_that_is_no_utf_8_goes_there_and_back(ends: Ends) -> None:
    ours, theirs = ends
    name = os.fsdecode(b"/srv/caf\xe9.txt")
    assert ours.send("hash", {"paths": [name]})
    packet = theirs.receive()
    assert packet is not None
    assert packet.body == {"paths": [name]}
    send_pairs(theirs, "hashed", {name: "00"})
    packet = ours.receive()
    assert packet is not None
    assert packet.body["pairs"] == [[name, "00"]]


def test_a_channel_is_rebuilt_from_its_descriptor(ends: Ends) -> None:
    ours, theirs = ends

    def body() -> object:
        again = Channel.of_fd(os.dup(theirs.fileno()))
        return again.send("from", {"pid": os.getpid()}), again.socket.type.name

    assert outcome(body) == "(True, 'SOCK_SEQPACKET')"
    packet = ours.receive()
    assert packet is not None
    assert packet.kind == "from"
