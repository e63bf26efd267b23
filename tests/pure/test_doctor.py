"""Facts in, findings out: what hurts, what is worth a word, and the cure of each."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from procd.config.schema import Config
from procd.doctor import machine
from procd.doctor.facts import Facts, Inotify, Left, Place, Queues, Unit, Version, Who
from procd.doctor.findings import Finding, findings
from tests.pure.configs import loaded

ROOT, ALICE = Who(0, "root", is_system=True), Who(1000, "alice", is_system=False)
PROCD = Who(990, "procd", is_system=True)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return dataclasses.replace(loaded(tmp_path, "task_slots: 1024"), user=None)


def facts(config: Config | None, **changes: Any) -> Facts:
    """Facts of a healthy machine."""
    healthy = Facts(
        config=config,
        config_error=None,
        master_pid=None,
        master=PROCD,
        workers=PROCD,
        queues=Queues(16384, 8192, 32000, 3),
        removes_ipc=None,
        inotify=Inotify(8192, 128, 2, 40),
        descriptors_max=65536,
        places=(),
        left=(),
        versions=(Version("Python", "3.11.7", "3.11", is_enough=True),),
        has_uvloop=True,
        unit=None,
    )
    return dataclasses.replace(healthy, **changes)


def worst(config: Config | None, **changes: Any) -> list[Finding]:
    """What is found beside what is in order."""
    return [found for found in findings(facts(config, **changes)) if found.level != "ok"]


def only(config: Config | None, **changes: Any) -> tuple[str, str, str]:
    (found,) = worst(config, **changes)
    return found.level, found.what, found.cure


def place(key: str, fstype: str = "ext4", **changes: Any) -> Place:
    return dataclasses.replace(Place(key, f"/srv/{key}", fstype, 1 << 40), **changes)


def test_healthy_machine_has_nothing_to_cure(config: Config) -> None:
    assert worst(config) == []


def test_every_finding_that_is_not_in_order_has_a_cure(config: Config) -> None:
    ill = worst(
        dataclasses.replace(config, task_slots=32768, max_conn=10**6),
        config_error="procd.yaml:1:1: no",
        workers=ROOT,
        queues=None,
        inotify=Inotify(10, 128, 2, 40),
        places=(place("state_dir", "nfs4"), place("chdir", "overlay")),
        left=tuple(Left(kind, "/x") for kind in ("queue", "arena", "damaged", "record")),
        versions=(Version("rich", None, "15", is_enough=False),),
        has_uvloop=False,
    )
    assert len(ill) == 13
    assert all(found.cure for found in ill)


def test_what_hurts_comes_first(config: Config) -> None:
    levels = [found.level for found in findings(facts(config, queues=None, has_uvloop=False))]
    assert levels[0] == "hurts"
    assert levels == sorted(levels, key=["hurts", "note", "ok"].index)


def test_broken_config_is_said_and_the_machine_looked_at_all_the_same() -> None:
    found = worst(None, config_error="procd.yaml:3:1: worker_nun: unknown key", queues=None)
    assert [one.about for one in found] == ["config", "queues"]
    assert "procd.yaml:3:1" in found[0].what


def test_no_config_at_all_is_no_fault_of_the_machine() -> None:
    assert only(None)[0] == "note"


def test_queues_of_the_machine_that_are_all_taken_stop_a_start_only(config: Config) -> None:
    taken = Queues(16384, 8192, 32, 32)
    level, _, cure = only(config, queues=taken)
    assert (level, "kernel.msgmni" in cure) == ("hurts", True)
    assert only(config, queues=taken, master_pid=7)[0] == "note"


def test_queue_too_small_for_one_task_hurts_and_one_too_small_for_all_does_not(
    config: Config,
) -> None:
    assert only(config, queues=Queues(4, 4, 32000, 0))[0] == "hurts"
    many = dataclasses.replace(config, task_slots=32768)
    assert only(many)[0::2] == ("note", "sysctl -w kernel.msgmnb=262144")


def test_remove_ipc_spares_system_users_and_hurts_where_strangers_send(config: Config) -> None:
    where = "/etc/systemd/logind.conf"
    assert worst(config, removes_ipc=where) == []
    assert only(config, removes_ipc=where, workers=ALICE)[0] == "note"
    public = dataclasses.replace(config, message_queue_key=7)
    level, _, cure = only(public, removes_ipc=where, workers=ALICE)
    assert (level, "RemoveIPC=no" in cure) == ("hurts", True)


def test_workers_as_root_are_worth_a_word(config: Config) -> None:
    assert only(config, master=ROOT, workers=ROOT)[0] == "note"


def test_account_that_is_not_there_or_cannot_be_taken_hurts(config: Config) -> None:
    config = dataclasses.replace(config, user="procd")
    assert only(config, workers=None)[2] == "useradd --system procd"
    assert "only root" in only(config, master=ALICE, workers=PROCD)[1]
    assert worst(config, master=ROOT, workers=PROCD) == []


def test_watches_that_do_not_suffice_mean_polling(config: Config) -> None:
    few = Inotify(100, 128, 0, 400)
    assert only(config, inotify=few)[0::2] == (
        "note",
        "sysctl -w fs.inotify.max_user_watches=65536",
    )
    assert worst(dataclasses.replace(config, watch_file=False), inotify=few) == []
    assert "instances" in only(config, inotify=Inotify(8192, 128, 128, 4))[1]


def test_fewer_descriptors_than_connections_hurt(config: Config) -> None:
    level, _, cure = only(config, descriptors_max=1024)
    assert (level, "LimitNOFILE=10256" in cure) == ("hurts", True)


def test_limit_of_the_config_is_the_one_that_counts(config: Config) -> None:
    low = dataclasses.replace(config, rlimits={"nofile": 1024})
    assert only(low)[::2] == ("hurts", f"rlimits: {{nofile: {config.max_conn + 256}}}")
    for enough in (65536, None):
        high = dataclasses.replace(config, rlimits={"nofile": enough})
        assert worst(high, descriptors_max=1024) == []


def test_network_file_system_hurts_where_there_are_locks(config: Config) -> None:
    assert only(config, places=(place("run_dir", "nfs4"),))[0] == "hurts"
    assert only(config, places=(place("state_dir", "cifs"),))[0] == "hurts"


def test_state_in_memory_or_in_a_container_is_worth_a_word(config: Config) -> None:
    assert "a reboot" in only(config, places=(place("state_dir", "tmpfs"),))[1]
    assert "the container" in only(config, places=(place("state_dir", "overlay"),))[1]
    assert worst(config, places=(place("run_dir", "tmpfs"),)) == []


def test_sources_that_tell_nothing_are_polled_unless_that_is_forbidden(config: Config) -> None:
    assert only(config, places=(place("chdir", "overlay"),))[0] == "note"
    never = dataclasses.replace(config, watch_poll=False)
    assert only(never, places=(place("chdir", "overlay"),))[0::2] == ("hurts", "watch_poll: auto")


def test_folder_that_may_not_be_used_hurts_and_so_does_a_full_disk(config: Config) -> None:
    denied = place("state_dir", problem="procd may not write /srv/state_dir")
    assert only(config, places=(denied,))[0] == "hurts"
    assert only(config, places=(place("state_dir", free_bytes=4096),))[0] == "hurts"


@pytest.mark.parametrize("kind", ["record", "queue", "arena", "damaged"])
def test_what_dead_services_left_is_named(config: Config, kind: str) -> None:
    level, what, _ = only(config, left=(Left(kind, "/left/here", "/srv/procd.yaml"),))
    assert (level, "/left/here" in what) == ("note", True)


def test_version_that_is_too_old_hurts(config: Config) -> None:
    old = (Version("click", "7.0", "8.5.1", is_enough=False),)
    assert "click is 7.0" in only(config, versions=old)[1]


def test_unit_that_does_not_agree_with_the_config_hurts(config: Config) -> None:
    def unit(**properties: str) -> Unit:
        good = {"Type": "notify", "Restart": "on-failure", "RemoveIPC": "no"}
        return Unit("x.service", good | {"TimeoutStopUSec": "45s"} | properties)

    assert worst(config, unit=unit()) == []
    assert only(config, unit=unit(RemoveIPC="yes"))[0] == "hurts"
    assert only(config, unit=unit(Type="simple"))[0] == "hurts"
    assert only(config, unit=unit(Restart="no"))[0] == "note"
    assert "max_wait_time" in only(config, unit=unit(TimeoutStopUSec="20s 500ms"))[1]
    assert worst(config, unit=unit(TimeoutStopUSec="1min 30s")) == []
    assert worst(config, unit=unit(TimeoutStopUSec="infinity")) == []


def test_remove_ipc_is_read_as_logind_reads_it(tmp_path: Path) -> None:
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    assert machine.removes_ipc(tmp_path) is None, "no logind"
    (tmp_path / "run/systemd/seats").mkdir(parents=True)
    assert machine.removes_ipc(tmp_path) is not None, "on by default"
    write("etc/systemd/logind.conf", "[Login]\n#RemoveIPC=yes\nRemoveIPC=no\n")
    assert machine.removes_ipc(tmp_path) is None
    write("usr/lib/systemd/logind.conf.d/50-x.conf", "[Login]\nRemoveIPC=yes\n")
    assert str(machine.removes_ipc(tmp_path)).endswith("usr/lib/systemd/logind.conf.d/50-x.conf")
    write("etc/systemd/logind.conf.d/50-x.conf", "[Login]\nRemoveIPC=off\n")
    assert machine.removes_ipc(tmp_path) is None
