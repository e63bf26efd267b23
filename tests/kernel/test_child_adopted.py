"""How processes come to be the master's own: announced, adopted, reaped, taken out of the table."""

from __future__ import annotations

import errno
import gc
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from math import inf
from pathlib import Path

import pytest

from procd.ipc.channel import Body, Channel, Closed, Packet
from procd.ipc.doorbell import Bell, Doorbell
from procd.ipc.layout import Layout
from procd.ipc.scoreboard import Role, Scoreboard
from procd.ipc.spool import Spool
from procd.linux import process
from procd.master.loop import Loop
from procd.master.outputs import Outputs
from procd.master.process import Death, Process
from procd.master.processes import Processes
from procd.master.states import Row, Seat, State
from procd.spawn import child
from procd.spawn.child import Birth
from procd.spawn.context import Origin
from procd.spawn.forkserver import serve
from tests.kernel.forked import forked, outcome


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def as_template(order: Callable[[int, Channel], None]) -> Callable[[], object]:
    """Run order(master's pid, process's end) in a template of a master that is a subreaper.

    Returns (what the channel said in order, whom the master reaped with which status).
    """

    def master() -> object:
        process.become_subreaper()
        ours, theirs = Channel.pair()
        pid = os.getpid()

        def template() -> int:
            order(pid, theirs)
            theirs.close()
            return 3

        forker = child.fork(template, {theirs.fileno()})
        theirs.close()
        reaped = {}
        said: list[tuple[str, object]] = []
        while True:
            try:
                dead, status = os.waitpid(-1, 0)
            except ChildProcessError:
                break
            name = "template" if dead == forker else str(dead)
            reaped[name] = os.waitstatus_to_exitcode(status)
            while (packet := received(ours)) is not None:
                said.append((packet.kind, packet.body.get("pid")))
        return said, reaped

    return master


def adopted(body: Callable[[], int], channel: Channel, close: Collection[int]) -> Birth:
    """A process that does nothing before it is the master's own."""

    def life(adopt: Callable[[], None]) -> int:
        adopt()
        return body()

    return Birth(life, channel, close)


def received(channel: Channel) -> Packet | None:
    try:
        return channel.receive()
    except Closed:
        return None


def test_what_a_template_forks_is_the_masters_own_child_and_announced() -> None:
    def order(master: int, channel: Channel) -> None:
        def body() -> int:
            channel.send("i am", {"pid": os.getpid()})
            return 7 if os.getppid() == master else 8

        child.fork_for_master([adopted(body, channel, ())], master)

    said, reaped = eval(outcome(as_template(order)))  # noqa: S307 - repr of our own
    pid = said[0][1]
    assert said == [("forked", pid), ("i am", pid)]
    assert reaped == {"template": 3, str(pid): 7}


def test_a_pid_is_known_before_its_process_can_be_reaped() -> None:
    def order(master: int, channel: Channel) -> None:
        for _ in range(25):
            child.fork_for_master([adopted(lambda: 7, channel, ())], master)

    said, reaped = eval(outcome(as_template(order)))  # noqa: S307 - repr of our own
    assert {str(pid) for _, pid in said} | {"template"} == set(reaped)
    assert len(reaped) == 26


class Deadly(Channel):
    """Who is to tell of a fork on it, and is not that process itself, is killed."""

    def send(self, kind: str, body: Body | None = None, fds: Sequence[int] = ()) -> bool:
        if kind == "forked" and body != {"pid": os.getpid()}:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().send(kind, body, fds)


def test_one_whose_intermediate_is_killed_on_the_way_tells_its_pid_itself() -> None:
    """Else the master has a living process that it can neither order about nor kill."""

    def order(master: int, channel: Channel) -> None:
        deadly = Deadly.of_fd(os.dup(channel.fileno()))

        def body() -> int:
            deadly.send("i am", {"pid": os.getpid()})
            return 7

        child.fork_for_master([adopted(body, deadly, ())], master)
        deadly.close()

    said, reaped = eval(outcome(as_template(order)))  # noqa: S307 - repr of our own
    pid = said[0][1]
    assert said == [("forked", pid), ("i am", pid)]
    assert reaped == {"template": 3, str(pid): 7}


def test_several_at_once_are_each_the_masters_own_and_hold_nothing_of_each_other() -> None:
    def order(master: int, channel: Channel) -> None:
        fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]

        def birth(number: int) -> Birth:
            others = [fd for fd in fds if fd != fds[number]]
            body = lambda: 10 * sum(map(is_open, fds)) + is_open(fds[number])  # noqa: E731 - a line
            return adopted(body, channel, others)

        child.fork_for_master([birth(number) for number in range(3)], master)

    said, reaped = eval(outcome(as_template(order)))  # noqa: S307 - repr of our own
    assert [kind for kind, _ in said] == ["forked"] * 3
    assert reaped == {"template": 3, **{str(pid): 11 for _, pid in said}}


def test_one_that_nobody_adopts_leaves_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "ADOPTION_SECONDS", 0.05)

    def order(_master: int, channel: Channel) -> None:
        child.fork_for_master([adopted(lambda: 0, channel, ())], 1)  # not its master

    said, reaped = eval(outcome(as_template(order)))  # noqa: S307 - repr of our own
    assert reaped[str(said[0][1])] == child.SOFTWARE_ERROR


def test_of_a_template_only_what_is_named_is_closed() -> None:
    """What the app opened while it was imported is its processes' too."""

    def order(master: int, channel: Channel) -> None:
        apps, own = os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)
        body = lambda: 10 * is_open(apps) + is_open(own)  # noqa: E731 - a line
        child.fork_for_master([adopted(body, channel, {own})], master)

    said, reaped = eval(outcome(as_template(order)))  # noqa: S307 - repr of our own
    assert reaped[str(said[0][1])] == 10


def refuse() -> int:
    raise OSError(errno.EAGAIN, "no more processes")


def test_a_fork_that_is_refused_costs_its_order_and_not_the_template() -> None:
    def template() -> object:
        pytest.MonkeyPatch().setattr("procd.spawn.child.os_fork", refuse)
        ours, theirs = Channel.pair()
        heard: list[str] = []

        def fork(packets: list[Packet]) -> None:
            heard.extend(packet.kind for packet in packets)
            child.fork_for_master([adopted(lambda: 0, theirs, ())], os.getpid())

        for kind in ("fork", "next"):
            ours.send(kind)
        ours.close()
        commands = {"fork": fork, "next": lambda packets: heard.append(packets[0].kind)}
        return serve(theirs, commands), heard

    assert outcome(template) == repr((0, ["fork", "next"]))


def test_where_only_the_second_fork_is_refused_the_channel_ends() -> None:
    """The intermediate is there by then, and alone."""

    def order(master: int, channel: Channel) -> None:
        forks = [os.fork]
        later = lambda: forks.pop()() if forks else refuse()  # noqa: E731 - a line
        pytest.MonkeyPatch().setattr("procd.spawn.child.os_fork", later)
        child.fork_for_master([adopted(lambda: 0, channel, ())], master)

    assert outcome(as_template(order)) == repr(([], {"template": 3}))


def test_an_app_that_ignores_sigchld_can_be_forked_from() -> None:
    def order(master: int, channel: Channel) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        child.fork_for_master([adopted(lambda: 7, channel, ())], master)

    _, reaped = eval(outcome(as_template(order)))  # noqa: S307 - repr of our own
    assert sorted(reaped.values()) == [3, 7]


# ---------------------------------------------------------------- the master's table


class Table:
    """Processes of a master in this test; a process is whoever *order* names."""

    def __init__(self, folder: Path) -> None:
        self.loop, self.deaths, self.said = Loop(), list[Death](), list[str]()
        self.bell, self.spool, self.ends = Doorbell(), Spool(folder / "spool"), list[Channel]()
        shared = (Layout.of(64, 256, 0), self.spool, 0, self.bell, Scoreboard(8))
        origin = Origin(os.getpid(), folder, -1, *shared, -1, Bell())
        self.outputs, heard = Outputs(origin.scoreboard), (self.heard, self.deaths.append)
        self.processes = Processes(origin, self.loop, *heard, self.outputs)

    def heard(self, _process: Process, packet: Packet) -> None:
        self.said.append(packet.kind)

    def announce(self, pid: int, *then: str) -> Channel:
        """Have a process appear; return its end of the channel."""

        def order(_row: Row, channel: Channel) -> bool:
            self.ends.append(end := Channel.of_fd(os.dup(channel.fileno())))
            return end.send("forked", {"pid": pid}) and all(end.send(kind) for kind in then)

        self.processes.fork(Seat(Role.WORKER, 0, 1), inf, order)
        return self.ends[-1]

    def turn(self) -> None:
        for callback in self.loop.wait(0)[1]:
            callback()

    def close(self) -> None:
        self.outputs.close()
        table = self.processes.table.values()
        for end in (*self.ends, *(each.channel for each in table)):
            end.close()
        for fd in {self.bell.fd, self.spool.fd, *(each.pidfd for each in table)} - {-1}:
            os.close(fd)
        self.loop._selector.close()
        self.loop._signals.close()
        self.loop._writer.close()


@pytest.fixture(name="table")
def a_table(tmp_path: Path) -> Iterator[Table]:
    table = Table(tmp_path)
    yield table
    table.close()


def test_a_process_is_reaped_with_its_last_words_and_its_status(table: Table) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(9)
    end = table.announce(pid, "failed")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert table.processes.reap() == {}
    (death,) = table.deaths
    assert (death.how, death.process.row.pid, death.sitting.row) == ("exit status 9", pid, 1)
    assert table.said == ["failed"]
    assert table.processes.table == {}
    end.close()


def test_a_process_that_never_came_about_leaves_its_row(table: Table) -> None:
    table.processes.fork(Seat(Role.WORKER, 0, 1), inf, lambda _row, _channel: False)
    assert table.processes.table == {}
    assert table.processes.held[Seat(Role.WORKER, 0, 1)].not_before > time.monotonic()


def test_a_pid_that_an_orphan_of_the_app_had_before_is_a_new_process(table: Table) -> None:
    """A subreaper reaps what an app's daemons leave behind; their pids come again."""
    with forked(lambda _say: time.sleep(600)) as living:
        table.processes._statuses[living.pid] = 0  # reaped long ago, named by nobody
        end = table.announce(living.pid)
        table.turn()
        end.close()
        assert table.deaths == []
        assert [each.row.state for each in table.processes.table.values()] == [State.BOOTING]


def test_descriptors_that_come_with_last_words_are_closed(table: Table) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    end = table.announce(pid)
    table.turn()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    end.send("words", fds=[0, 1])
    end.close()  # this one, the channel and the pidfd go: three less
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    table.processes.reap()
    assert len(os.listdir("/proc/self/fd")) == before - 3
