"""Gathering all facts about one config on this machine."""

from __future__ import annotations

import os

from procd.config.schema import Config
from procd.doctor import machine, places
from procd.doctor.facts import Facts
from procd.linux import process


def examine(
    config: Config | None,
    config_error: str | None,
    master_pid: int | None = None,
    unit: str | None = None,
) -> Facts:
    """Return the facts; takes a moment, changes nothing, and raises nothing for what is missing."""
    uid = (process.owner(master_pid) if master_pid else None) or os.geteuid()
    master = machine.who(uid)
    workers = master if config is None else places.owner(config, master, machine.who)
    return Facts(
        config=config,
        config_error=config_error,
        master_pid=master_pid,
        master=master,
        workers=workers,
        queues=machine.queues(),
        removes_ipc=machine.removes_ipc(),
        inotify=None if config is None else machine.inotify(uid, config.chdir),
        descriptors_max=machine.descriptors_max(master_pid),
        places=() if config is None else places.look(config, master, workers),
        left=places.left(config, runs=master_pid is not None),
        versions=machine.versions(),
        has_uvloop=machine.has_uvloop(),
        unit=machine.unit(unit),
    )
