"""Importing an app in a throw-away process, to see whether it would start."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress

from procd.config.schema import Config
from procd.ipc.channel import Channel, Closed
from procd.spawn import child


def check_app(config: Config, *, is_about_to_start: bool = False) -> str | None:
    """Return what is wrong with the app, `FILE:LINE:COL: ...` first; None if it imports.

    With *is_about_to_start* also what the kernel does not allow this user: nice, rlimits.
    """
    ours, theirs = Channel.pair()
    pid = child.fork(
        lambda: _import(config, theirs, takes_all=is_about_to_start), {theirs.fileno()}
    )
    theirs.close()
    text: str | None = None
    if not select.select([ours.fileno()], [], [], config.boot_timeout)[0]:
        text = f"{config.path}:1:1: app: its import has not ended within {config.boot_timeout:g} s"
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    else:
        text = _verdict(ours)
    _, status = os.waitpid(pid, 0)
    if text == "":
        how = (
            signal.Signals(status).name if os.WIFSIGNALED(status) else f"exit status {status >> 8}"
        )
        text = f"{config.path}:1:1: app: its import ended the process with {how}"
    ours.close()
    return text


def _verdict(channel: Channel) -> str | None:
    try:
        packet = channel.receive()
    except Closed:
        return ""
    if packet is None or packet.kind == "good":
        return None
    return str(packet.body.get("error"))


def _import(config: Config, channel: Channel, *, takes_all: bool) -> int:
    from procd.spawn import allowance
    from procd.spawn.appimport import checked
    from procd.spawn.explain import explain
    from procd.spawn.loader import Loader

    os.environ.update(config.env)
    try:
        if takes_all:
            allowance.Allowance.of(config).take()
            allowance.check()
        os.chdir(config.chdir)
        loader = Loader(config.chdir, None, lambda path, digest: None)
        loader.install()
        checked(loader.load(config.app), config.app)
    except BaseException as error:  # noqa: BLE001 - an import may raise anything
        elsewhere = f"{config.path}:1:1"
        text = explain(error, config.chdir, column=True, elsewhere=elsewhere)
        channel.send("bad", {"error": text})
        return 2
    channel.send("good")
    return 0
