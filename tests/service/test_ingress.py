"""Foreign programs' messages become tasks: what is understood, where it runs, what is refused."""

from __future__ import annotations

import json
import random
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from procd.ipc import QueueEmpty, SwooleTask
from procd.ipc.foreign import php
from procd.ipc.foreign.codec import CODECS
from tests.service.daemon import Service, scaled
from tests.service.ingress import SECONDS, Foreign, page, rejected, seen


@pytest.mark.parametrize(
    ("data", "value", "kind"),
    [
        (b"hello", "hello", "str"),
        ("我".encode(), "我", "str"),
        (b"\xff\x00", "ff00", "bytes"),
        (b's:4:"text";', "text", "str"),
        (b'a:2:{i:0;i:1;i:1;s:1:"b";}', [1, "b"], "list"),
        (b'a:1:{s:1:"n";i:7;}', {"n": 7}, "dict"),
        (b"N;", None, "NoneType"),
        (b'{"n": [1, 2.5, null]}', {"n": [1, 2.5, None]}, "dict"),
        (b"[not json]", "[not json]", "str"),
        (CODECS["msgpack"].encode({"n": 7}), {"n": 7}, "dict"),
        (b"x" * 8192, "x" * 8192, "str"),
    ],
)
def test_a_message_is_recognised(foreign: Foreign, data: bytes, value: object, kind: str) -> None:
    service, queue = foreign()
    queue.send(data, 1)
    assert seen(service, 1)[0][:2] == [value, kind]
    assert service.ledger("task")[0][3] == -1


def test_messages_become_tasks_in_their_order(
    foreign: Foreign,
) -> None:
    service, queue = foreign(task_worker_num=1)
    for number in range(300):
        queue.send(str(number).encode(), 10 + number % 7, timeout=SECONDS)
    assert [int(row[0]) for row in seen(service, 300)] == list(range(300))
    assert queue.messages == 0


def test_the_type_names_a_task_worker_by_its_id_or_its_pid(
    foreign: Foreign,
) -> None:
    service, queue = foreign(worker_num=1, task_worker_num=3)
    pids = service.seats()
    for _ in range(20):
        queue.send(b"by id", 1 + 3, timeout=SECONDS)
        queue.send(php.dump("by pid"), pids[2], timeout=SECONDS)
    rows = seen(service, 40)
    assert {row[2] for row in rows if row[0] == "by id"} == {3}
    assert {row[2] for row in rows if row[0] == "by pid"} == {2}
    assert page(service)["unaddressed"] == 0
    queue.send(b"to nobody", 4_000_000)
    queue.send(b"to a worker", 1)
    seen(service, 42)
    assert page(service)["unaddressed"] == 2


def test_both_headers_of_swoole_are_understood(
    foreign: Foreign,
) -> None:
    service, queue = foreign(worker_num=1)
    for tasks in (SwooleTask(queue, header_bytes=12), SwooleTask(queue, header_bytes=40)):
        tasks.dispatch("Hello from Python!", 1)
        tasks.dispatch({"n": [1, 2]}, 2)
    rows = sorted(seen(service, 4), key=str)
    assert [row[0] for row in rows] == ["Hello from Python!"] * 2 + [{"n": [1, 2]}] * 2
    assert [row[2] for row in rows] == [1, 1, 2, 2]


def test_what_is_no_task_is_counted_and_holds_up_nobody(
    foreign: Foreign,
) -> None:
    service, queue = foreign()
    shutdown = bytes.fromhex("00000000 0000 0000 10 00 0000")  # 12 bytes, event 16
    queue.send(b'O:8:"stdClass":0:{}', 3)
    queue.send(b"", 5)
    queue.send(shutdown, 2)
    queue.send(b"after them", 1)
    assert seen(service, 1)[0][0] == "after them"
    assert rejected(service, 3) == {"empty": 1, "system": 1, "undecodable": 1}
    samples = json.loads(service.ok("queue", "rejected", "--json").stdout)
    assert [(s["mtype"], s["reason"]) for s in samples] == [
        *((3, "undecodable"), (5, "empty"), (2, "system")),
    ]
    assert bytes.fromhex(samples[0]["head"]) == b'O:8:"stdClass":0:{}'
    assert "an object is refused" in service.ok("queue", "rejected").stdout
    assert "foreign programs" in service.ok("status").stdout


def test_one_codec_alone_is_taken_where_it_is_named(
    foreign: Foreign,
) -> None:
    service, queue = foreign(message_queue_codec="json")
    queue.send(b"5", 1)
    queue.send(b"i:5;", 1)
    assert seen(service, 1)[0][0] == 5
    assert rejected(service, 1) == {"undecodable": 1}


def test_bytes_stay_bytes_where_the_config_says_so(
    foreign: Foreign,
) -> None:
    service, queue = foreign(message_queue_strings="bytes")
    queue.send(b"abc", 1)
    queue.send(b's:3:"abc";', 1)
    assert [row[:2] for row in seen(service, 2)] == [["616263", "bytes"]] * 2


def test_an_edit_of_how_to_read_is_in_effect_at_once(
    foreign: Foreign,
) -> None:
    service, queue = foreign()
    (old,) = service.pids("ingress")
    queue.send(b"[1]", 1)
    seen(service, 1)
    service.configure(message_queue_codec="text")
    service.reload()
    service.wait_for(lambda: service.pids("ingress") not in ([], [old]), SECONDS)
    queue.send(b"[1]", 1)
    assert [row[:2] for row in seen(service, 2)] == [[[1], "list"], ["[1]", "str"]]


def test_without_a_free_slot_the_queue_fills_and_nothing_is_lost(
    foreign: Foreign,
) -> None:
    service, queue = foreign(task_slots=64, task_worker_num=1)
    held = service.root / "held"
    held.touch()
    queue.send(f"hold {held}".encode(), 1)
    for number in range(120):
        queue.send(b"%d" % number, 1, timeout=SECONDS)
    service.wait_for(lambda: service.status()["tasks"]["refused"] > 0, SECONDS)
    assert queue.messages > 0
    held.unlink()
    assert [int(row[0]) for row in seen(service, 121)[1:]] == list(range(120))


def test_what_another_program_takes_from_the_queue_costs_no_other_message(
    foreign: Foreign,
) -> None:
    service, queue = foreign()
    stolen = set()
    for number in range(2000):
        queue.send(b"%d" % number, 10, timeout=SECONDS)
        with suppress(QueueEmpty):
            stolen.add(queue.receive(10, 0)[0].decode())
    wanted = {str(number) for number in range(2000)}
    service.wait_for(lambda: {row[0] for row in service.ledger("task")} | stolen == wanted, SECONDS)


def test_kill_minus_nine_of_the_ingress_loses_nothing(foreign: Foreign) -> None:
    service, queue = foreign(task_slots=16384)
    rng = random.Random(9)
    number = 0
    for kill in range(1, scaled(400, 50) + 1):
        (pid,) = service.wait_for(lambda: living_ingress(service), SECONDS)
        at = rng.randrange(20)
        for place in range(20):
            queue.send(b"%d" % number, 10, timeout=SECONDS)
            number += 1
            if place == at:
                service.kill(pid)
        service.wait_for_end(pid, SECONDS)
        if kill % 4 == 0:
            service.reload()  # deaths before it do not delay the next one
    wanted = {str(n) for n in range(number)}
    service.wait_for(lambda: {row[0] for row in service.ledger("task")} >= wanted, 4 * SECONDS)
    assert queue.messages == 0
    # Twice is what was stored and not yet taken off, or running, at a death: one each at most.
    assert len(service.ledger("task")) <= number + scaled(400, 50)


def living_ingress(service: Service) -> list[int]:
    """By its name, which costs no command."""
    return [pid for pid in service.alive() if "procd: ingress" in comm(pid)]


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def test_sigterm_to_the_ingress_has_it_replaced_and_nothing_run_twice(foreign: Foreign) -> None:
    service, queue = foreign()
    service.wait_for(lambda: service.pids("ingress"), SECONDS)
    for number in range(600):
        queue.send(b"%d" % number, 10, timeout=SECONDS)
        if number % 200 == 100:
            (pid,) = service.wait_for(lambda: living_ingress(service), SECONDS)
            service.kill(pid, signal.SIGTERM)
            service.wait_for_end(pid, SECONDS)
    assert sorted(int(row[0]) for row in seen(service, 600)) == list(range(600))
    assert queue.messages == 0


def test_a_reload_leaves_the_ingress_alone(
    foreign: Foreign,
) -> None:
    service, queue = foreign()
    before = service.wait_for(lambda: service.pids("ingress"), SECONDS)
    service.reload()
    queue.send(b"after", 1)
    assert seen(service, 1)[0][0] == "after"
    assert service.pids("ingress") == before
