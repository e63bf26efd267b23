"""The token queue removed, full, and fought for: nothing is lost, nobody starves, order is kept."""

from __future__ import annotations

import random
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import pytest
import sysv_ipc

from tests.service import leftovers
from tests.service.client import Client
from tests.service.conftest import Serve
from tests.service.daemon import Service, eventually, scaled

LIMIT = int(Path("/proc/sys/kernel/msgmnb").read_text())


def queue_bytes(service: Service) -> int:
    """Of tokens in the service's queues."""
    rows = Path("/proc/sysvipc/msg").read_text().splitlines()[1:]
    mine = leftovers.queues() - service.queues_before
    return sum(int(row.split()[3]) for row in rows if int(row.split()[1]) in mine)


def one_of_each_worker(service: Service, stack: ExitStack, count: int) -> list[Client]:
    """Clients of different workers."""
    found: dict[int, Client] = {}

    def look() -> bool:
        client = stack.enter_context(service.connect())
        found.setdefault(client.ask("os.getpid()"), client)
        return len(found) == count

    eventually(look, 20, f"{count} workers")
    return list(found.values())


@pytest.mark.heavy
def test_a_queue_removed_again_and_again_under_load_loses_no_task(serve: Serve) -> None:
    removals, count = max(5, scaled(50)), max(5, scaled(50)) * 200
    service = serve(task_slots=2 * count)
    with ExitStack() as stack:
        clients = one_of_each_worker(service, stack, 2)
        half = count // 2
        for number, client in enumerate(clients):
            client.post(f"flood('ran({{}}) and time.sleep(0.0005)', {number * half}, {half})")
        for _ in range(removals):
            before = len(service.runs())
            gone = service.wait_for(lambda: leftovers.queues() - service.queues_before, 10)
            for queue in gone:
                sysv_ipc.remove_message_queue(queue)
            # The next one only once this has been got over.
            most = min(count, before + 20)
            service.wait_for(lambda most=most: len(service.runs()) >= most, 20)  # type: ignore[misc]
        for client in clients:
            assert client.read_answer(60) == half
    service.wait_for(lambda: len(service.runs()) == count, 60)
    service.wait_for(lambda: service.status()["tasks"]["queued"] == 0, 10)
    assert service.runs() == dict.fromkeys(range(count), 1)
    service.wait_for(lambda: service.log().count("made anew") >= removals, 5)


@pytest.mark.parametrize("how", ["removed", "restarted"])
def test_what_waits_keeps_its_order_in_a_queue_that_is_made_anew(serve: Serve, how: str) -> None:
    count = 300
    service = serve(task_worker_num=1)
    held = service.occupy(1)
    mixed = "[work.options(priority=1 + n % 9).send('0').id for n in range(300)]"
    service.ask(f"{mixed} and 0")
    held.unlink()  # slots come free in another order than theirs
    service.wait_for(lambda: service.status()["tasks"]["done"] == count + 1, 10)
    held = service.occupy(1)
    service.ask(f"flood('ran({{}})', 0, {count})")
    if how == "removed":
        (queue,) = leftovers.queues() - service.queues_before
        sysv_ipc.remove_message_queue(queue)
    else:
        service.stop("--timeout", "0")
        service.start()
    held.unlink()
    service.wait_for(lambda: len(service.runs()) == count, 10)
    assert [row[0] for row in service.ledger("ran")] == list(range(count))


@pytest.mark.heavy
def test_ten_times_what_the_queue_has_room_for_is_accepted_and_runs(serve: Serve) -> None:
    count = 20_000
    service = serve(task_slots=count + 1000, task_slot_bytes=256)
    held = service.occupy(2)
    with service.connect() as client:
        client.post(f"flood('{{}}', 0, {count})")
        assert client.read_answer(60) == count
        assert queue_bytes(service) <= LIMIT
        assert count * 8 > 5 * LIMIT
        assert service.status()["tasks"]["queued"] == count
        held.unlink()
        service.wait_for(lambda: client.ask("len(finished)", 60) >= count, 60)
        numbers = "sorted(r for _, r in finished if type(r) is int) == list(range(20_000))"
        assert client.ask(numbers, 60)
    service.wait_for(lambda: service.status()["tasks"]["queued"] == 0, 10)


# ---------------------------------------------------------------- order and shares

SEEN = "note('seen', {}, {}, {}, os.getpid())"  # dispatcher, priority, number


def flood_of_priorities(client: Client, who: int, count: int) -> None:
    client.post(
        "len([work.options(priority=1 + (n * 7) % 9)"
        f'.send("{SEEN}".format({who}, 1 + (n * 7) % 9, n)) for n in range({count})])'
    )


@pytest.mark.heavy
def test_mixed_priorities_of_many_keep_their_order_and_none_starves(serve: Serve) -> None:
    """100,000 from 4 workers to 2 task workers in the full count."""
    each = max(2_000, scaled(25_000))
    service = serve(worker_num=4, task_slots=4 * each + 1000, task_slot_bytes=256)
    held = service.occupy(2)
    with ExitStack() as stack:
        clients = one_of_each_worker(service, stack, 4)
        before = {pid: own_bytes(pid) for pid in [service.master, *service.pids("task")]}
        for who, client in enumerate(clients):
            flood_of_priorities(client, who, each)
        assert [client.read_answer(120) for client in clients] == [each] * 4
        held.unlink()
        service.wait_for(lambda: len(service.ledger("seen")) == 4 * each, 120)
    seen = service.ledger("seen")
    assert len({tuple(row[:3]) for row in seen}) == 4 * each
    prove_order(seen)
    prove_shares(seen)
    grown = {pid: own_bytes(pid) - bytes_ for pid, bytes_ in before.items()}
    assert max(grown.values()) < 20_000_000, grown


def own_bytes(pid: int) -> int:
    """Memory of its own: pages of the arena that it has touched are everybody's."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def prove_order(seen: list[list[int]]) -> None:
    """What one task worker got of one dispatcher and priority came in the order of its sending."""
    last: dict[tuple[int, int, int], int] = defaultdict(lambda: -1)
    for who, priority, number, pid in seen:
        assert number > last[who, priority, pid]
        last[who, priority, pid] = number


def prove_shares(seen: list[list[int]]) -> None:
    """The least urgent had their turns from the beginning, the most urgent most of them."""
    head = [row[1] for row in seen[: len(seen) // 3]]
    assert head.count(9) >= len(head) // 16 // 16
    assert head.count(1) > head.count(9)


def test_an_urgent_task_gets_through_a_flood_of_another_worker(serve: Serve) -> None:
    """Whose tokens fill the queue does not keep it full against everybody else."""
    count = 4_000
    service = serve(task_slots=3 * count, task_slot_bytes=256)
    with ExitStack() as stack:
        flooding, urgent = one_of_each_worker(service, stack, 2)
        flooding.post(f"flood('ran({{}}) and time.sleep(0.0005)', 0, {count})")
        assert flooding.read_answer(30) == count
        for _ in range(10):
            assert urgent.ask("await work.options(priority=1).send('6 * 7')", 30) == 42
        assert len(service.runs()) < count, "before the others are through"
    service.wait_for(lambda: len(service.runs()) == count, 60)


def test_shuffled_floods_of_two_priorities_let_the_urgent_go_first(serve: Serve) -> None:
    service = serve(worker_num=1, task_worker_num=1)
    held = service.occupy(1)
    order = [1] * 50 + [9] * 50
    random.Random(4).shuffle(order)
    service.ask(
        f'len([work.options(priority=p).send("{SEEN}".format(0, p, n))'
        f" for n, p in enumerate({order})])"
    )
    held.unlink()
    service.wait_for(lambda: len(service.ledger("seen")) == 100, 10)
    first = [row[1] for row in service.ledger("seen")[:50]]
    assert 44 <= first.count(1) < 50  # and each 16th the oldest
