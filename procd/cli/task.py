"""procd task: tasks that wait, run, or have come to their end.

A running service is asked; where none runs, its ledger's file is opened under the lease, so that
no service starts meanwhile.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from procd.cli import taskpage
from procd.cli.client import Json, NoAnswer, Service
from procd.cli.root import config_path
from procd.cli.tasksend import send
from procd.config.load import load
from procd.errors import NotRunning, ProcdError, UsageError
from procd.ledger import files
from procd.master import lease

SECONDS = 30.0  # for the ledger to answer: a disk may be slow
STATES = ("queued", "delayed", "running", "dead", "done", "failed", "cancelled")

_KINDS = {
    "retry": "dead letter",
    "cancel": "task that waits or runs",
    "purge": "task that is over",
}

json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")
ids_argument = click.argument("ids", nargs=-1, type=click.IntRange(0, 2**63 - 1), metavar="[ID]...")


@click.group()
def task() -> None:
    """Look at tasks, and at those that died: let them run again, or forget them.

    Works while the service runs and, for what its ledger holds, while it does not.
    """


@task.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only these. [default: all but history]")
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="As many."
)
@json_option
@click.pass_context
def list_tasks(ctx: click.Context, state: str | None, limit: int, *, as_json: bool) -> None:
    """List tasks, the oldest of each state first."""
    found: list[Json] = []
    total = 0
    while len(found) < limit:
        answer = _ask(ctx, {"verb": "list", "state": state, "offset": len(found)})
        tasks, total = answer["tasks"], int(str(answer["total"]))
        if not isinstance(tasks, list) or not tasks:
            break
        found += tasks
    found = found[:limit]
    if as_json:
        click.echo(json.dumps(found))
    else:
        taskpage.show_all(found, total)


@task.command()
@click.argument("number", type=click.IntRange(0, 2**63 - 1), metavar="ID")
@json_option
@click.pass_context
def show(ctx: click.Context, number: int, *, as_json: bool) -> None:
    """Show everything that is known of a task: its data, attempts, error, traceback, times."""
    found = _ask(ctx, {"verb": "show", "id": number})["task"]
    if not isinstance(found, dict):
        raise ProcdError(f"there is no task {number}: it is over and forgotten, or never was")
    if as_json:
        click.echo(json.dumps(taskpage.plain(found)))
    else:
        taskpage.show_one(found)


@task.command()
@ids_argument
@click.option("--all", "is_all", is_flag=True, help="All dead letters.")
@json_option
@click.pass_context
def retry(ctx: click.Context, ids: tuple[int, ...], *, is_all: bool, as_json: bool) -> None:
    """Let dead letters run again, with all their attempts and under the same ids."""
    if bool(ids) == is_all:
        raise UsageError("say which: procd task retry ID..., or procd task retry --all")
    _change(ctx, {"verb": "retry", "ids": list(ids) if ids else None}, "will run again", as_json)


@task.command()
@click.argument("ids", nargs=-1, type=click.IntRange(0, 2**63 - 1), metavar="ID...", required=True)
@json_option
@click.pass_context
def cancel(ctx: click.Context, ids: tuple[int, ...], *, as_json: bool) -> None:
    """Cancel tasks: one that waits never begins, one that runs is cut short.

    In its handler TaskCancelled is raised; a second later its process is killed. While no service
    runs only durable tasks can be cancelled.
    """
    _change(ctx, {"verb": "cancel", "ids": list(ids)}, "cancelled", as_json)


@task.command()
@ids_argument
@json_option
@click.pass_context
def purge(ctx: click.Context, ids: tuple[int, ...], *, as_json: bool) -> None:
    """Forget all dead letters, or the tasks named. What is still to run is never forgotten."""
    _change(ctx, {"verb": "purge", "ids": list(ids) if ids else None}, "forgotten", as_json)


def _change(ctx: click.Context, request: Json, what: str, as_json: bool) -> None:  # noqa: FBT001 - a flag passed on
    answer = _ask(ctx, request)
    count, done, asked = answer["count"], answer["ids"], request["ids"]
    if as_json:
        click.echo(json.dumps({"count": count}))
    else:
        click.echo(f"{count} {'task' if count == 1 else 'tasks'} {what}")
    if isinstance(asked, list) and isinstance(done, list):
        # An answer names as many as were asked for, one by one.
        missed = [number for number in asked if number not in done]
        if missed:
            kind = _KINDS[str(request["verb"])]
            raise ProcdError(f"no {kind}: {', '.join(map(str, missed))}")


def _ask(ctx: click.Context, request: Json) -> Json:
    path = config_path(ctx)
    try:
        service = Service(path)
    except NotRunning:
        answer = _ask_file(path, request)
    else:
        try:
            answer = service.ask({"command": "task", **request}, SECONDS)
        except (NoAnswer, TimeoutError) as error:
            raise ProcdError(f"pid {service.pid} runs but does not answer: {error}") from None
    if not answer.get("ok"):
        raise ProcdError(str(answer.get("error")))
    return answer


def _ask_file(config: Path, request: Json) -> Json:
    """Answer from the file of a service that does not run."""
    # Here, because no other command needs a database.
    from procd.ledger.desk import Desk
    from procd.ledger.store import open_store

    state_dir = load(config).state_dir
    path = state_dir / files.NAME
    if not path.exists():
        return {"ok": True, "total": 0, "tasks": [], "task": None, "ids": [], "count": 0}
    with lease.borrowed(state_dir / "lease"):
        store = open_store(path)
        try:
            return Desk(store, lambda _: None).answer(request)
        finally:
            store.close()


task.add_command(send)
