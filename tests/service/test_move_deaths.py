"""Moves in which somebody dies, hangs, leaves or has no room."""

from __future__ import annotations

from tests.service.client import Client
from tests.service.conftest import Serve
from tests.service.daemon import Service
from tests.service.moving import ask, clients, draining, who


def slow_heirs(make: Serve, max_wait_time: int = 20) -> Service:
    """A service whose next generations take 20 ms for each connection that they adopt."""
    service = make("moving.py", worker_num=1, max_wait_time=max_wait_time)
    service.extra_environment["RESUME"] = "1"
    service.start()
    service.edit("await asyncio.sleep(0.01)", "__import__('time').sleep(0.02)")
    return service


def hang_once(service: Service, seconds: int) -> None:
    """Have the first heir stand still so long when it adopts its first connection."""
    hang = f"os.path.exists('hung') or (open('hung', 'w'), __import__('time').sleep({seconds}))"
    service.edit("__import__('time').sleep(0.02)", hang)


def survivors(many: list[Client]) -> list[Client]:
    """Those that are still open; they know how many messages they have had."""
    found = []
    for client in many:
        try:
            assert ask(client, "seen") == "2"
            found.append(client)
        except (EOFError, ConnectionError):
            pass
    return found


def test_kill_of_the_heir_leaves_what_it_did_not_have_with_the_old_worker(make: Serve) -> None:
    service = slow_heirs(make)
    hang_once(service, 30)
    with clients(service, 500) as many:
        service.reload()
        heir = service.seats()[0]
        service.wait_for((service.root / "hung").exists, 10)
        assert draining(service)
        service.kill(heir)
        left = survivors(many)
        assert 0 < len(left) < 500  # what it had answered for died with it
        service.wait_for(lambda: not draining(service), 15)
        assert {who(client)[0] for client in left} == {2}


def test_kill_of_the_old_worker_leaves_what_it_had_sent_with_the_heir(make: Serve) -> None:
    service = slow_heirs(make)
    with clients(service, 250) as many:
        service.reload()
        (old,) = draining(service)
        service.kill(old)
        service.wait_for_end(old, 5)
        left = survivors(many)
        assert left  # all of them where everything had been sent by then
        assert {who(client)[0] for client in left} == {2}


def test_heir_that_is_replaced_while_it_adopts_loses_nothing(make: Serve) -> None:
    service = slow_heirs(make)
    with clients(service, 100) as many:
        for _ in range(3):
            service.reload()
        service.wait_for(lambda: not draining(service), 20)
        assert survivors(many) == many
        assert {who(client)[0] for client in many} == {4}


def test_heir_without_descriptors_leaves_the_rest_with_the_old_worker(make: Serve) -> None:
    service = make("moving.py", worker_num=1, max_wait_time=4)
    service.start()
    service.edit(
        "\n@server.on_connect",
        """
@server.on_worker_start
def start() -> None:
    import resource
    free = 10 + max(int(fd) for fd in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))

@server.on_connect""",
    )
    with clients(service, 40) as many:
        service.reload()
        service.wait_for(lambda: "out of descriptors" in service.log(), 5)
        assert survivors(many) == many
        assert {who(client)[0] for client in many} == {1, 2}


def test_deadline_while_the_heir_hangs_leaves_it_what_it_was_sent(make: Serve) -> None:
    service = slow_heirs(make, max_wait_time=1)
    hang_once(service, 3)
    with clients(service, 500) as many:
        service.reload()
        (old,) = draining(service)
        service.wait_for_end(old, 5)
        left = survivors(many)
        assert 64 <= len(left) < 500  # a window at least; what was never sent is closed
        assert {who(client)[0] for client in left} == {2}
    service.wait_for(lambda: "connections left to an heir that hangs count=64" in service.log(), 5)
    assert "by=SIGKILL" not in service.log()


def test_stop_in_the_middle_of_a_move_is_in_time(make: Serve) -> None:
    service = slow_heirs(make, max_wait_time=1)
    hang_once(service, 30)
    with clients(service, 300) as many:
        service.reload()
        service.wait_for((service.root / "hung").exists, 10)
        service.ok("stop", timeout=1 + 1 + 3)
        assert all(client.is_closed(1) for client in many)
