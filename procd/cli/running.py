"""stop, reload, scale: commands to a service that runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click

from procd.cli.client import NoAnswer, Service
from procd.cli.root import config_path
from procd.cli.waiting import shown
from procd.errors import NotRunning, ProcdError, UsageError

GRACE_SECONDS = 5.0  # past its own deadline before a master counts as stuck


def refuse_unit(service: Service, verb: str) -> None:
    unit = service.unit()
    if unit is not None and "INVOCATION_ID" not in os.environ:
        raise ProcdError(f"pid {service.pid} is {unit}: use `systemctl {verb} {unit}`")


def running(path: Path) -> Service | None:
    try:
        return Service(path)
    except NotRunning:
        return None


@click.command()
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="S", help="Instead of max_wait_time."
)
@click.option("--discard", is_flag=True, help="Drop the tasks that are left.")
@click.pass_context
def stop(ctx: click.Context, timeout: float | None, *, discard: bool) -> None:
    """Stop the service; returns when every process of it is gone."""
    service = Service(config_path(ctx))
    refuse_unit(service, "stop")
    with shown("stopping"):
        said = stop_service(service, timeout, discard=discard)
    click.echo(said)


def stop_service(
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
