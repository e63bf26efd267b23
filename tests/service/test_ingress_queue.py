"""The public queue: whose it must be, what becomes of it at a stop and when somebody removes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from procd.ipc import Queue
from procd.ipc.foreign.swoole import Flag, TaskMessage, TmpFile, build
from procd.linux import sysvtable
from procd.linux.sysv import MessageQueue
from tests.kernel.forked import NOBODY, Say, forked, needs_root
from tests.kernel.queues import free_key
from tests.service.conftest import Serve
from tests.service.daemon import eventually
from tests.service.ingress import SECONDS, Foreign, page, rejected, seen

GROUP = 54321


def send_as(uid: int, group: int, key: int, text: str) -> str:
    """Send a message as another user, who has that one group; the error that he gets, or sent."""

    def send(_: Say) -> str:
        os.setgroups([])
        os.setgid(group)
        os.setuid(uid)
        Queue.open(key, "w").send(text.encode(), 1, timeout=SECONDS)
        return "sent"

    with forked(send) as child:
        return child.line()


@needs_root
def test_a_member_of_the_group_hands_in_a_file(make: Serve) -> None:
    key = free_key()
    service = make("foreign.py", message_queue_key=key)
    folder = service.root / "spool"
    folder.mkdir()
    service.root.chmod(0o755)
    os.chown(folder, 0, GROUP)
    folder.chmod(0o2770)
    service.configure(
        message_queue_mode="0620", message_queue_group=str(GROUP), task_tmpdir=str(folder)
    )
    service.start()

    def hand_in(_: Say) -> str:
        os.setgroups([])
        os.setgid(GROUP)
        os.setuid(NOBODY)
        for mode in (0o600, 0o640):
            path = folder / f"{mode:o}"
            path.write_bytes(b"x" * 20_000)
            path.chmod(mode)
            file = TmpFile(bytes(path), 20_000)
            Queue.open(key, "w").send(build(TaskMessage(1, file, Flag.TMPFILE), 12), 1, 0)
        return "sent"

    with forked(hand_in) as child:
        assert child.line() == "sent"
    assert seen(service, 1)[0][0] == "x" * 20_000
    assert rejected(service, 1) == {"file": 1}
    assert [path.name for path in folder.iterdir()] == ["600"]


def row(queue: Queue) -> sysvtable.QueueStat:
    return sysvtable.row(queue.id)


@needs_root
def test_nobody_may_send_and_the_configured_group_may_if_it_is_let_in(foreign: Foreign) -> None:
    service, queue = foreign()
    assert (row(queue).mode, row(queue).owner_uid) == (0o600, 0)
    assert "is not for this user" in send_as(NOBODY, NOBODY, queue.key, "nobody")
    service.stop()
    service.configure(message_queue_mode="0620", message_queue_group=str(GROUP))
    service.start()
    queue = Queue.open(queue.key)
    assert (row(queue).mode, row(queue).owner_gid) == (0o620, GROUP)
    assert "is not for this user" in send_as(NOBODY, NOBODY, queue.key, "nobody")
    assert send_as(NOBODY, GROUP, queue.key, "member") == "sent"
    assert seen(service, 1)[0][0] == "member"


@needs_root
def test_the_queue_is_the_users_own_where_there_is_one(make: Serve) -> None:
    key = free_key()
    service = make("foreign.py", message_queue_key=key, user="nobody", env={"LEDGER": "/dev/null"})
    service.root.chmod(0o755)
    service.start()
    queue = Queue.open(key)
    assert row(queue).owner_uid == NOBODY
    assert send_as(NOBODY, NOBODY, key, "mine") == "sent"
    service.wait_for(lambda: page(service)["taken"] == 1, SECONDS)


@pytest.mark.parametrize("mode", [0o666, 0o660, 0o602])
def test_a_queue_that_lets_in_more_is_refused_by_name(make: Serve, mode: int) -> None:
    stranger = Queue.create(None, mode)
    service = make("foreign.py", message_queue_key=stranger.key)
    done = service.run("start")
    assert done.returncode == 1
    assert f"has mode {mode:04o}" in done.stderr
    assert "procd queue rm" in done.stderr
    assert "start procd first" in done.stderr
    assert row(stranger).mode == mode
    stranger.remove()
    service.queues_before.discard(stranger.id)
    service.start()


@needs_root
def test_a_queue_of_another_user_is_refused_by_name(make: Serve) -> None:
    stranger = Queue.create()
    stranger.set(uid=NOBODY)
    service = make("foreign.py", message_queue_key=stranger.key)
    done = service.run("start")
    assert (done.returncode, f"belongs to uid {NOBODY}" in done.stderr) == (1, True)
    stranger.remove()
    service.queues_before.discard(stranger.id)


def test_what_was_sent_before_the_start_is_taken_from_a_queue_of_ours(make: Serve) -> None:
    queue = Queue.create()
    queue.send(b"before", 1)
    service = make("foreign.py", message_queue_key=queue.key)
    service.start()
    assert seen(service, 1)[0][0] == "before"
    service.stop()
    assert row(queue).messages == 0  # procd has not made it, and leaves it
    queue.remove()
    service.queues_before.discard(queue.id)


def test_an_empty_queue_goes_with_the_service_and_a_full_one_stays(foreign: Foreign) -> None:
    service, queue = foreign(task_slots=64, task_worker_num=1, max_wait_time=1)
    held = service.root / "held"
    held.touch()
    queue.send(f"hold {held}".encode(), 1)
    for number in range(100):
        queue.send(b"%d" % number, 1, timeout=SECONDS)
    service.wait_for(lambda: service.status()["tasks"]["refused"] > 0, SECONDS)
    left = queue.messages
    assert left > 0
    done = service.stop("--timeout", "0")
    service.keeps_tasks = True
    assert f"{left} messages kept in the public queue" in done.stdout
    assert queue.messages == left
    held.unlink()
    service.start()
    assert Queue.open(queue.key).id == queue.id
    assert {row[0] for row in seen(service, 101)} >= {str(n) for n in range(100)}
    service.wait_for(lambda: queue.messages == 0, SECONDS)
    service.stop()
    assert queue.id not in {found.id for found in sysvtable.rows()}


def test_a_restart_keeps_the_queue(foreign: Foreign) -> None:
    service, queue = foreign()
    service.ok("restart")
    assert Queue.open(queue.key).id == queue.id
    queue.send(b"again", 1)
    assert seen(service, 1)[0][0] == "again"


def test_a_queue_that_procd_made_follows_the_config_over_a_restart(foreign: Foreign) -> None:
    service, queue = foreign(message_queue_mode="0660")
    service.configure(message_queue_mode="0600")
    done = service.reload()
    assert "needs a restart: message_queue_mode" in done.stdout + done.stderr
    assert row(queue).mode == 0o660
    service.ok("restart")
    assert (row(queue).mode, row(queue).id) == (0o600, queue.id)


def test_a_queue_whose_key_is_not_configured_any_more_is_removed(foreign: Foreign) -> None:
    service, queue = foreign()
    service.kill(service.master)
    service.wait_for(lambda: not service.alive(), SECONDS)
    service.configure(message_queue_key=None)
    service.start()
    assert queue.id not in {found.id for found in sysvtable.rows()}
    assert service.processes("ingress") == []


def test_a_queue_that_is_removed_is_made_anew(foreign: Foreign) -> None:
    service, queue = foreign()
    for number in range(3):
        queue.remove()
        queue = another(queue)
        queue.send(b"%d" % number, 1)
        assert seen(service, number + 1)[number][0] == str(number)
    service.wait_for(lambda: service.log().count("made anew") == 3, 5)


def another(old: Queue) -> Queue:
    """The queue of that key, once it is another one."""

    def is_there() -> bool:
        return any(row.key == old.key and row.id != old.id for row in sysvtable.rows())

    eventually(is_there, SECONDS)
    return Queue.open(old.key)


def test_a_queue_that_another_program_makes_in_its_place_is_refused_until_it_is_gone(
    foreign: Foreign,
) -> None:
    service, queue = foreign()
    # As a program that is quicker: the processes stand still meanwhile.
    service.kill(service.master, 19)
    queue.remove()
    stranger = MessageQueue.create_key(queue.key, 0o666)
    stranger.send(b"stranger", 1)
    service.kill(service.master, 18)
    service.wait_for(lambda: "has mode 0666" in str(page(service)["error"]), SECONDS)
    assert "public queue: " in service.ok("status").stdout
    assert service.ledger("task") == []
    stranger.remove()
    mine = another(queue)
    service.wait_for(lambda: page(service)["error"] is None, SECONDS)
    mine.send(b"mine", 1)
    assert seen(service, 1)[0][0] == "mine"
    service.wait_for(lambda: service.log().count("public queue not taken") == 1, 5)


@pytest.mark.parametrize("key", [1963150487, 0xFEDCBA98])
def test_queue_ls_names_the_service_and_rm_spares_its_queue(serve: Serve, key: int) -> None:
    service = serve("foreign.py", message_queue_key=key)
    queue = Queue.open(key)
    assert str(service.config_path) in service.ok("queue", "stat", str(key)).stdout
    done = service.run("queue", "rm", str(key))
    assert (done.returncode, "public queue" in done.stderr) == (1, True), done.stderr
    queue.send(b"there", 1)
    assert seen(service, 1)[0][0] == "there"


def test_a_start_that_fails_leaves_no_queue(make: Serve, tmp_path: Path) -> None:
    key = free_key()
    service = make("foreign.py", message_queue_key=key, listen=[f"unix://{tmp_path}/no/such"])
    assert service.run("start").returncode == 1
    service.configure(listen=[], app="app:nothing")
    assert service.run("start").returncode == 1
    assert key not in {found.key for found in sysvtable.rows()}
