"""Importing an app in a throw-away process, to see whether it would start."""

from __future__ import annotations

import os
import select
import signal
import traceback
from contextlib import suppress

from procd.config.schema import Config
from procd.ipc.channel import Channel, Closed
from procd.spawn import child


def check_app(config: Config) -> str | None:
    """Return what is wrong with the app, `FILE:LINE:COL: ...` first; None if it imports."""
    ours, theirs = Channel.pair()
    pid = child.fork(lambda: _import(config, theirs), {theirs.fileno()})
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


def _import(config: Config, channel: Channel) -> int:
    from procd.spawn.appimport import checked
    from procd.spawn.explain import explain
    from procd.spawn.loader import Loader

    os.environ.update(config.env)
    try:
        os.chdir(config.chdir)
        loader = Loader(config.chdir, None, lambda path, digest: None)
        loader.install()
        checked(loader.load(config.app), config.app)
    except BaseException as error:  # noqa: BLE001 - an import may raise anything
        channel.send("bad", {"error": f"{_place(config, error)}: {explain(error)}"[:60_000]})
        return 2
    channel.send("good")
    return 0


def _place(config: Config, error: BaseException) -> str:
    """Return FILE:LINE:COL of the app's own last frame."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno or 1}:{error.offset or 1}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith(str(config.chdir)) and "/procd/spawn/" not in frame.filename:
            return f"{frame.filename}:{frame.lineno or 1}:{(frame.colno or 0) + 1}"
    return f"{config.path}:1:1"
