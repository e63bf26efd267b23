"""The app that most service tests run: a line of Python in, a line of JSON out.

A worker evaluates what a client sends, a task worker what a task brings, each with the names of
this module, so that a test says itself what happens where.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import time
from typing import Any

from procd import (
    Connection,
    InboxFull,
    Server,
    Task,
    TaskFailed,
    TaskQueueFull,
    current_task,
    task,
)

VERSION = "1"
GLOBALS = globals()
server = Server()
finished: list[tuple[int, Any]] = []  # what on_finish got in this process
counts = {"connected": 0, "closed": 0, "started": 0}


def note(*words: Any) -> None:
    """One line in the ledger; O_APPEND makes it whole whoever else writes."""
    fd = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, json.dumps(words, default=repr).encode() + b"\n")
    finally:
        os.close(fd)


def ran(number: int) -> int:
    """Note that task *number* ran here."""
    note("ran", number, os.getpid())
    return number


def who() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "id": server.worker_id,
        "generation": server.generation,
        "is_task_worker": server.is_task_worker,
        "version": VERSION,
    }


def error_of(error: BaseException) -> dict[str, str]:
    return {"error": type(error).__name__, "text": str(error)}


def attempt(call: Any, *args: Any) -> Any:
    """What *call* returns, or the error it raises as a value."""
    try:
        return call(*args)
    except Exception as error:  # noqa: BLE001 - whatever it is, the client is told
        return error_of(error)


async def outcome(awaitable: Any) -> Any:
    try:
        return await awaitable
    except Exception as error:  # noqa: BLE001 - whatever it is, the client is told
        return error_of(error)


def fill(expression: str, limit: int) -> dict[str, Any]:
    """Dispatch *expression* until there is no room; how many were accepted, and what refused."""
    for accepted in range(limit):
        try:
            server.task(expression)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told
            return {"accepted": accepted, **error_of(error)}
    return {"accepted": limit, "error": None}


def flood(expression: str, first: int, count: int) -> int:
    for number in range(first, first + count):
        server.task(expression.format(number))
    return count


async def persist(expression: str, count: int) -> int:
    """As flood(), trying again whenever there is no room."""
    for number in range(count):
        while True:
            try:
                server.task(expression.format(number))
                break
            except TaskQueueFull:
                await asyncio.sleep(0.001)
    return count


async def trickle(count: int, target: int) -> None:
    """Send *count* numbered messages, each as soon as the inbox has room."""
    for number in range(count):
        while True:
            try:
                server.send_message(number, target)
                break
            except InboxFull:
                await asyncio.sleep(0.001)


async def stream(conn: Connection, chunks: int) -> int:
    """Send 64 KiB blocks of x, waiting whenever the client does not read."""
    for _ in range(chunks):
        conn.send(b"x" * 65536)
        await conn.drain()
    return chunks


def spin() -> int:
    """Stay in one C call, which no Python signal handler interrupts."""
    return sum(range(10**12))


@task
def add(a: int, b: int = 1) -> dict[str, Any]:
    return {"sum": a + b, "pid": os.getpid()}


@task
def work(expression: str) -> Any:
    """A task to be sent with options: `work.options(...).send("...")`."""
    return eval(expression, {**GLOBALS, "task": current_task()})  # noqa: S307 - as below


@task
async def work_async(expression: str) -> Any:
    code = compile(expression, "<task>", "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    value = eval(code, {**GLOBALS, "task": current_task()})  # noqa: S307 - as below
    return await value if inspect.isawaitable(value) else value


def tell(*words: Any) -> None:
    """Note something, with the attempt of the task that runs here and the time."""
    running = current_task()
    note(*words, running and running.attempt, time.time())


def times_out(seconds: float, after: float) -> str:
    """Take a while, and say what came in between; then take *after* for it."""
    try:
        time.sleep(seconds)
    except TaskFailed as error:
        tell("raised", type(error).__name__)
        time.sleep(after)
        return "tidied up"
    return "in time"


async def awaits_out(seconds: float) -> str:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        tell("raised", "CancelledError")
        raise
    return "in time"


async def heard(ref: Any) -> list[Any]:
    """Everything that a task tells of its progress, and its result."""
    return [value async for value in ref.progress()] + [await ref]


@task(name="app.ran")
def ran_by_name(number: int) -> int:
    return ran(number)


@task
def same(value: Any) -> Any:
    return value


@task
def broken(text: str) -> None:
    fail(text)


@task
def nap(seconds: float) -> None:
    time.sleep(seconds)


@task(delivery="durable")
def remember(number: int, seconds: float = 0) -> int:
    time.sleep(seconds)
    return ran(number)


@task(delivery="durable")
def fatal() -> int:
    os.kill(os.getpid(), 9)
    return ran(0)


async def stored(first: int, count: int, seconds: float = 0) -> int:
    """Send durable tasks; return when all of them are accepted."""
    refs = [remember.send(number, seconds) for number in range(first, first + count)]
    for ref in refs:
        await ref.accepted()
    return count


@server.on_worker_start
def opened() -> None:
    counts["started"] += 1


@server.on_worker_stop
def stopped() -> None:
    note("stopped", server.worker_id, os.getpid())


@server.on_connect
def connected(conn: Connection) -> None:
    conn.state["number"] = counts["connected"] = counts["connected"] + 1


@server.on_close
def closed(conn: Connection) -> None:
    counts["closed"] += "number" in conn.state


@server.on_receive
async def receive(conn: Connection, data: bytes) -> None:
    rest = conn.state.pop("rest", b"")
    assert isinstance(rest, bytes)
    *lines, conn.state["rest"] = (rest + data).split(b"\n")
    for line in lines:
        answer = await evaluate(line.decode(), {"conn": conn})
        conn.send(json.dumps(answer, default=repr).encode() + b"\n")


async def evaluate(expression: str, names: dict[str, Any]) -> Any:
    if expression.startswith("raise "):
        raise RuntimeError(expression.removeprefix("raise "))
    code = compile(expression, "<client>", "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    try:
        value = eval(code, {**GLOBALS, **names})  # noqa: S307 - the test's own text
        return await value if inspect.isawaitable(value) else value
    except Exception as error:  # noqa: BLE001 - whatever it is, the client is told
        return error_of(error)


if os.environ.get("ASYNC_TASKS"):

    @server.on_task
    async def run_async(task: Task) -> Any:
        code = compile(str(task.data), "<task>", "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        value = eval(code, {**GLOBALS, "task": task})  # noqa: S307 - the test's own text
        return await value if inspect.isawaitable(value) else value

else:

    @server.on_task
    def run(task: Task) -> Any:
        return eval(str(task.data), {**GLOBALS, "task": task})  # noqa: S307 - as above


@server.on_finish
def finish(task_id: int, result: Any) -> None:
    finished.append((task_id, result))


@server.on_pipe_message
def message(src_worker_id: int, data: Any) -> None:
    note("message", server.worker_id, src_worker_id, data)


def fail(text: str) -> None:
    raise ValueError(text)


async def slowly(seconds: float) -> dict[str, Any]:
    await asyncio.sleep(seconds)
    return who()


def hold(path: str) -> str:
    """Keep this process until somebody deletes *path*."""
    while os.path.exists(path):
        time.sleep(0.01)
    return path


def blocking(seconds: float) -> dict[str, Any]:
    time.sleep(seconds)
    return who()
