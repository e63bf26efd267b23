"""start, restart: commands that make a service."""

from __future__ import annotations

import sys

import click

from procd.cli.checking import check_app
from procd.cli.client import Service
from procd.cli.root import config_path, overrides_option
from procd.cli.running import GRACE_SECONDS, refuse_unit, running, stop_service
from procd.cli.waiting import shown
from procd.config.load import load
from procd.config.schema import YEAR, Config
from procd.errors import AlreadyRunning, ConfigError, UsageError
from procd.service import daemon

# Nobody who sits at a prompt of the debugger is replaced, killed for it, or joined by a second.
SINGLE = (
    *("worker_num=1", "hang_timeout=null", f"boot_timeout={YEAR}", "watch_file=false"),
    *("max_request=0", "task_max_request=0", "max_memory=null", "task_timeout=null"),
)


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
    there = running(config.path)
    if there is not None:
        refuse_unit(there, "restart")
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
@overrides_option
@click.pass_context
def restart(ctx: click.Context, overrides: tuple[str, ...]) -> None:
    """Stop and start; a config or app that is bad leaves the old service running."""
    config = load(config_path(ctx), overrides)
    with shown("checking the app"):
        problem = check_app(config, is_about_to_start=True)
    if problem is not None:
        raise ConfigError(f"{problem}\nnothing was stopped")
    service = running(config.path)
    if service is not None:
        refuse_unit(service, "restart")
        with shown("stopping"):
            said = stop_service(service, restart=True)
        click.echo(said)
    _start(config, overrides, foreground=False)
