"""procd.ipc.Queue: which message is taken, what is too large, looking without taking."""

from __future__ import annotations

import ctypes
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from procd.errors import MessageTooBig
from procd.ipc import Queue, QueueDenied, QueueEmpty, QueueFull, QueueGone
from procd.linux import sysvraw
from tests.kernel import queues
from tests.kernel.forked import NOBODY, as_nobody, needs_root, outcome


@pytest.fixture(autouse=True)
def _no_queue_is_left() -> Iterator[None]:
    with queues.no_queue_left():
        yield


@pytest.fixture(name="queue")
def made_queue() -> Iterator[Queue]:
    queue = Queue.create()
    yield queue
    queue.remove()


# ---------------------------------------------------------------- which message


def test_all_but_one_type_is_taken_in_order(queue: Queue) -> None:
    for mtype in (3, 1, 3, 2):
        queue.send(b"%d" % mtype, mtype)
    assert queue.receive(excluding=3) == (b"1", 1)
    assert queue.receive(excluding=3) == (b"2", 2)
    with pytest.raises(QueueEmpty):
        queue.receive(excluding=3, timeout=0)
    assert queue.messages == 2


@pytest.mark.parametrize(("mtype", "excluding"), [(1, 2), (-3, 1), (0, 0), (0, -2)])
def test_a_selection_that_makes_no_sense_is_refused(
    queue: Queue, mtype: int, excluding: int
) -> None:
    with pytest.raises(ValueError, match=f"{excluding}"):
        queue.receive(mtype, excluding=excluding)


@pytest.mark.parametrize("mtype", [2**31, 2**31 + 5, 2**63 - 1])
def test_types_of_more_than_31_bits_are_sent_and_selected(queue: Queue, mtype: int) -> None:
    queue.send(b"plain", 7)
    queue.send(b"large", mtype)
    assert queue.receive(mtype, timeout=0) == (b"large", mtype)
    queue.send(b"large", mtype)
    assert queue.receive(-mtype, timeout=0) == (b"plain", 7)
    assert queue.receive(timeout=0) == (b"large", mtype)


@pytest.mark.parametrize("mtype", [0, -1, 2**63, 2**100])
def test_a_type_that_the_kernel_has_not_is_refused(queue: Queue, mtype: int) -> None:
    with pytest.raises(ValueError, match="type"):
        queue.send(b"", mtype)
    if abs(mtype) >= 2**63:
        with pytest.raises(ValueError, match="type"):
            queue.receive(mtype, timeout=0)


def test_a_large_type_waits_for_room_and_is_bytes_as_well(queue: Queue) -> None:
    text: Any = "text"
    with pytest.raises(TypeError, match="bytes"):
        queue.send(text, 2**40)
    with pytest.raises(MessageTooBig, match=r"kernel\.msgmax"):
        queue.send(b"x" * 8193, 2**40)
    queue.send(b"x" * 8192, 2**40)
    queue.send(b"x" * 8192, 2**40)
    with pytest.raises(QueueFull):
        queue.send(b"x", 2**40, timeout=0.01)


# ---------------------------------------------------------------- what is too large


def test_what_is_too_large_is_dropped_by_name_and_poisons_nothing(queue: Queue) -> None:
    queue.send(b"x" * 5000, 3)
    queue.send(b"next")
    with pytest.raises(MessageTooBig, match=r"type 3 with 5000 bytes.* 4096 are allowed.*dropped"):
        queue.receive(max_bytes=4096)
    assert queue.receive(max_bytes=4096) == (b"next", 1)


def test_what_is_too_large_is_cut_where_the_caller_wants_that(queue: Queue) -> None:
    for data in (b"abcdef", b"abc", b""):
        queue.send(data)
    cut = [queue.receive(max_bytes=3, oversize="cut")[0] for _ in range(3)]
    assert cut == [b"abc", b"abc", b""]


def test_what_is_too_large_is_kept_where_the_caller_wants_that(queue: Queue) -> None:
    queue.send(b"abcdef", 5)
    for _ in range(3):
        with pytest.raises(MessageTooBig, match="left where it is"):
            queue.receive(max_bytes=3, oversize="keep", timeout=0)
    assert queue.receive(max_bytes=6, oversize="keep") == (b"abcdef", 5)


def test_a_limit_goes_with_every_selection(queue: Queue) -> None:
    queue.send(b"xxx", 3)
    queue.send(b"yyy", 4)
    assert queue.receive(excluding=3, max_bytes=1, oversize="cut") == (b"y", 4)
    with pytest.raises(MessageTooBig):
        queue.receive(-9, max_bytes=1)
    with pytest.raises(QueueEmpty):
        queue.receive(max_bytes=1, timeout=0)


@pytest.mark.parametrize("limit", [-1, 2**31])
def test_a_limit_that_is_none_is_refused(queue: Queue, limit: int) -> None:
    with pytest.raises(ValueError, match="max_bytes"):
        queue.receive(max_bytes=limit)


def test_another_word_for_what_is_too_large_is_refused(queue: Queue) -> None:
    burn: Any = "burn"
    with pytest.raises(ValueError, match="drop, cut, keep"):
        queue.receive(max_bytes=1, oversize=burn)


@needs_root
def test_messages_beyond_the_first_buffer_are_taken_and_looked_at_whole() -> None:
    def body() -> object:
        queues.set_limit("msgmnb", 1 << 20)
        queues.set_limit("msgmax", 300_000)
        queue = Queue.create()
        for _ in range(3):
            queue.send(b"x" * 300_000, 2)
        sizes = [len(queue.peek()[0]), len(queue.receive(excluding=1)[0])]
        # From here on the kernel refuses to copy it, and still gives it away.
        queues.set_limit("msgmax", 8192)
        try:
            queue.peek()
        except MessageTooBig:
            sizes.append(len(queue.receive()[0]))
        sizes.append(len(queue.receive(max_bytes=300_000)[0]))
        queue.remove()
        return sizes

    assert outcome(queues.in_own_namespace(body)) == repr([300_000] * 4)


# ---------------------------------------------------------------- looking


def test_looking_takes_nothing_off(queue: Queue) -> None:
    for number in range(5):
        queue.send(b"%d" % number, 9 - number)
    assert queue.peek() == (b"0", 9)
    assert queue.peek(4) == (b"4", 5)
    with pytest.raises(QueueEmpty):
        queue.peek(5)
    assert [data for data, _ in queue.peek_all()] == [b"0", b"1", b"2", b"3", b"4"]
    assert queue.messages == 5


def test_an_empty_message_is_seen_and_stays(queue: Queue) -> None:
    queue.send(b"", 4)
    assert [queue.peek(), queue.peek()] == [(b"", 4)] * 2
    with pytest.raises(ValueError, match="place"):
        queue.peek(-1)


@needs_root
def test_who_may_only_write_cannot_look(queue: Queue) -> None:
    queue.set(mode=0o622)
    said = outcome(as_nobody(lambda: Queue.open(queue.key, "w").peek()))
    assert said.startswith(QueueDenied.__name__)


def test_a_removed_queue_is_gone_for_every_call() -> None:
    queue = Queue.create()
    queue.remove()
    for call in (
        queue.peek,
        queue.stat,
        lambda: queue.send(b"", 2**40),
        lambda: queue.receive(excluding=1),
        lambda: queue.receive(max_bytes=1, oversize="cut"),
        lambda: queue.set(mode=0o600),
    ):
        with pytest.raises(QueueGone):
            call()


# ---------------------------------------------------------------- stat and set


def test_a_queue_tells_everything_that_the_kernel_knows(queue: Queue) -> None:
    before = queue.stat()
    assert (before.last_send, before.last_receive, before.messages) == (0, 0, 0)
    queue.send(b"12345")
    queue.send(b"678")
    queue.receive()
    after = queue.stat()
    assert (after.key, after.id, after.mode) == (queue.key, queue.id, 0o600)
    assert (after.messages, after.bytes, after.bytes_max) == (1, 3, queue.bytes_max)
    assert after.last_send >= after.last_change > 0
    assert after.last_receive
    assert after.last_send_pid == after.last_receive_pid


def test_mode_and_size_are_set(queue: Queue) -> None:
    queue.set(mode=0o640, bytes_max=100)
    assert (queue.mode, queue.bytes_max) == (0o640, 100)
    queue.send(b"x" * 100)
    with pytest.raises(QueueFull):
        queue.send(b"x", timeout=0)
    with pytest.raises(MessageTooBig, match="100 in all"):
        queue.send(b"x" * 101)


@pytest.mark.parametrize("value", [{"mode": 0o1777}, {"bytes_max": -1}, {"uid": 2**32 - 1}])
def test_a_value_that_cannot_be_is_refused(queue: Queue, value: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="is not in 0"):
        queue.set(**value)
    assert queue.mode == 0o600


@needs_root
def test_a_queue_is_given_away_and_only_its_owner_changes_it(queue: Queue) -> None:
    queue.set(mode=0o666)

    def change() -> object:
        Queue.open(queue.key).set(mode=0o600)
        return "changed"

    assert outcome(as_nobody(change)).startswith(QueueDenied.__name__)
    queue.set(uid=NOBODY, gid=NOBODY)
    assert outcome(as_nobody(change)) == repr("changed")
    assert (queue.stat().owner_uid, queue.stat().owner_gid) == (NOBODY, NOBODY)


# ---------------------------------------------------------------- against the kernel itself


def test_random_selections_take_what_a_list_would(queue: Queue) -> None:
    rng = random.Random(11)
    model: list[tuple[bytes, int]] = []
    for number in range(2000):
        if rng.random() < 0.5 and len(model) < 100:
            message = (b"%d" % number, rng.randint(1, 5))
            queue.send(*message)
            model.append(message)
            continue
        kind, wanted = rng.choice(["any", "one", "lowest", "but"]), rng.randint(1, 5)
        fitting = {
            "any": model,
            "one": [m for m in model if m[1] == wanted],
            "lowest": sorted((m for m in model if m[1] <= wanted), key=lambda m: m[1]),
            "but": [m for m in model if m[1] != wanted],
        }[kind]
        selection = {"any": 0, "one": wanted, "lowest": -wanted, "but": 0}[kind]
        but = wanted if kind == "but" else None
        if not fitting:
            with pytest.raises(QueueEmpty):
                queue.receive(selection, 0, excluding=but)
            continue
        assert queue.receive(selection, 0, excluding=but) == fitting[0]
        model.remove(fitting[0])
        assert list(queue.peek_all()) == model


def test_the_largest_type_is_that_of_the_kernels_long() -> None:
    assert 2 ** (8 * ctypes.sizeof(ctypes.c_long) - 1) - 1 == sysvraw.LARGEST_TYPE


@pytest.mark.parametrize(
    ("imports", "absent"),
    [
        ("from procd.ipc import *", "asyncio"),
        ("from procd.ipc import arena, inbox, wire", "procd.ipc.queue"),
    ],
)
def test_nobody_loads_what_he_has_no_use_for(imports: str, absent: str) -> None:
    source = f"{imports}; import sys; print({absent!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, check=True)
    assert done.stdout == b"False\n"
