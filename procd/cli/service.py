"""start, stop, restart, reload, scale: commands that change a service."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from procd.cli.checking import check_app
from procd.cli.client import NoAnswer, Service
from procd.cli.root import config_path, overrides_option
from procd.cli.waiting import shown
from procd.config.load import load
from procd.config.schema import YEAR, Config
from procd.errors import AlreadyRunning, ConfigError, NotRunning, ProcdError, UsageError
from procd.service import daemon

GRACE_SECONDS = 5.0  # past its own deadline before a master counts as stuck

# Nobody who sits at a prompt of the debugger is replaced, killed for it, or joined by a second.
SINGLE = (
    *("worker_num=1", "hang_timeout=null", f"boot_timeout={YEAR}", "watch_file=false"),
    *("max_request=0", "task_max_request=0", "max_memory=null", "task_timeout=null"),
)


def _refuse_unit(service: Service, verb: str) -> None:
    unit = service.unit()
    if unit is not None and "INVOCATION_ID" not in os.environ:
        raise ProcdError(f"pid {service.pid} is {unit}: use `systemctl {verb} {unit}`")


def _running(path: Path) -> Service | None:
    try:
        return Service(path)
    except NotRunning:
        return None


@click.command()
@click.option("-f", "--foreground", is_flag=True, help="Stay, log to stderr (systemd, containers).")
@click.option("--single", is_flag=True, help="One worker, in which breakpoint() works; with -f.")
@overrides_option
@click.option("--ready-fd", type=int, hidden=True)
@click.pass_context
def start(
    ctx: click.Context,
    overrides: tuple[str, ...],
    ready_fd: int | None,
    *,
    foreground: bool,
    single: bool,
) -> None:
    """Start the service; returns when it serves.

    With --single there are one worker and at most one task worker, with this terminal as theirs:
    breakpoint() works in a handler, a task and an import. No process is ended for standing still
    or started anew by a save: `procd reload` takes new code, Ctrl-C ends all.
    """
    path = config_path(ctx)
    config = load(path, overrides)
    if single:
        if not foreground:
            raise UsageError("--single is for the terminal: add --foreground")
        overrides = (*SINGLE, f"task_worker_num={min(1, config.task_worker_num)}", *overrides)
        config = load(path, overrides)
    if ready_fd is not None:
        sys.exit(daemon.run_daemon(config, overrides, ready_fd))
    _start(config, overrides, foreground=foreground, single=single)


def _start(
    config: Config, overrides: tuple[str, ...], *, foreground: bool, single: bool = False
) -> None:
    there = _running(config.path)
    if there is not None:
        _refuse_unit(there, "restart")
        raise AlreadyRunning(f"pid {there.pid} runs for {config.path} already")
    if foreground:
        sys.exit(daemon.run_foreground(config, overrides, single=single))
    if config.log_file is None:
        click.echo("procd: log_file is null: in the background the log goes nowhere", err=True)
    with shown("starting"):
        pid = daemon.start_daemon(config, overrides)
    addresses = Service(config.path).ask({"command": "status"}, GRACE_SECONDS)["status"]
    listeners = addresses.get("listeners") if isinstance(addresses, dict) else None
    where = ", ".join(listeners) if isinstance(listeners, list) else ""
    click.echo(f"started pid {pid}, serving {where or 'tasks'}")


@click.command()
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="S", help="Instead of max_wait_time."
)
@click.option("--discard", is_flag=True, help="Drop the tasks that are left.")
@click.pass_context
def stop(ctx: click.Context, timeout: float | None, *, discard: bool) -> None:
    """Stop the service; returns when every process of it is gone."""
    service = Service(config_path(ctx))
    _refuse_unit(service, "stop")
    with shown("stopping"):
        said = _stop(service, timeout, discard=discard)
    click.echo(said)


def _stop(
    service: Service,
    timeout: float | None = None,
    *,
    discard: bool = False,
    restart: bool = False,
) -> str:
    answer: dict[str, object] = {}
    seconds = service.max_wait_time() if timeout is None else timeout
    request: dict[str, object] = {"command": "stop", "timeout": timeout, "discard": discard}
    request["restart"] = restart
    try:
        answer = service.ask(request, seconds + 2 * GRACE_SECONDS)
    except TimeoutError:
        service.signal(signal.SIGKILL)
        service.wait_gone(None)
        raise ProcdError(
            f"pid {service.pid} did not answer: killed, its processes with it; the next start "
            "clears what is left and runs the tasks that were accepted"
        ) from None
    except NoAnswer:
        if discard:
            raise
        service.signal(signal.SIGTERM)
    service.wait_gone(None)
    text = f"stopped pid {service.pid}"
    if kept := answer.get("kept"):
        text += f", {kept} tasks kept"
    if unread := answer.get("unread"):
        text += f", {unread} messages kept in the public queue"
    return text


@click.command()
@overrides_option
@click.pass_context
def restart(ctx: click.Context, overrides: tuple[str, ...]) -> None:
    """Stop and start; a config or app that is bad leaves the old service running."""
    config = load(config_path(ctx), overrides)
    with shown("checking the app"):
        problem = check_app(config, is_about_to_start=True)
    if problem is not None:
        raise ConfigError(f"{problem}\nnothing was stopped")
    service = _running(config.path)
    if service is not None:
        _refuse_unit(service, "restart")
        with shown("stopping"):
            said = _stop(service, restart=True)
        click.echo(said)
    _start(config, overrides, foreground=False)


@click.command()
@click.option("--tasks", is_flag=True, help="Task workers only.")
@click.pass_context
def reload(ctx: click.Context, *, tasks: bool) -> None:
    """Take code and config from the disk; returns when the new generation serves."""
    service = Service(config_path(ctx))
    try:
        with shown("reloading"):
            answer = service.ask({"command": "reload", "tasks": tasks})
    except NoAnswer as error:
        service.signal(signal.SIGUSR2 if tasks else signal.SIGHUP)
        raise ProcdError(f"{error}; signalled pid {service.pid} instead, see its log") from None
    _finish(ctx, answer)


@click.command()
@click.argument("counts", nargs=-1, required=True, metavar="worker=N task=M")
@click.pass_context
def scale(ctx: click.Context, counts: tuple[str, ...]) -> None:
    """Change the counts of workers and task workers live."""
    request: dict[str, object] = {"command": "scale"}
    for part in counts:
        name, _, text = part.partition("=")
        if name not in ("worker", "task") or not text.isdecimal() or len(text) > 9:
            raise UsageError(f"{part!r}: say worker=N or task=M")
        request[name] = int(text)
    service = Service(config_path(ctx))
    with shown("scaling"):
        answer = service.ask(request)
    _finish(ctx, answer)


def _finish(ctx: click.Context, answer: dict[str, object]) -> None:
    if answer.get("ok"):
        click.echo(answer.get("message"))
        return
    click.echo(answer.get("error"), err=True)
    status = answer.get("exit")
    ctx.exit(status if isinstance(status, int) else 1)


COMMANDS = (start, stop, restart, reload, scale)
