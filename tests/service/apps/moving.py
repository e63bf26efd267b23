"""Connections for tests of moves: each message is numbered, and answered by its number and by whom.

What a test wants otherwise it sets in the environment, before the start.
"""

from __future__ import annotations

import asyncio
import os

from procd import Connection, Server

VERSION = "1"
server = Server()
held: dict[int, Connection] = {}  # HOLD: the app keeps each connection
calls: list[str] = []


@server.on_connect
def connect(conn: Connection) -> None:
    calls.append("connect")
    conn.state |= {"seen": 0, "rest": b""}
    if "HOLD" in os.environ:
        held[conn.id] = conn


@server.on_close
def close(conn: Connection) -> None:
    calls.append("close")
    held.pop(conn.id, None)


if "RESUME" in os.environ:

    @server.on_resume
    async def resume(conn: Connection) -> None:
        await asyncio.sleep(0.01)
        calls.append("resume")
        held[conn.id] = conn


@server.on_receive
async def receive(conn: Connection, data: bytes) -> None:
    """Lines: a number, or a word that answered() knows; answered in their order."""
    rest, seen = conn.state["rest"], conn.state["seen"]
    assert isinstance(rest, bytes)
    assert isinstance(seen, int)
    *lines, conn.state["rest"] = (rest + data).split(b"\n")
    for number, line in enumerate(lines, start=seen + 1):
        conn.state["seen"] = number
        word, _, argument = line.decode().partition(" ")
        answer = await answered(conn, word, argument)
        conn.send(f"{answer} {server.generation}/{server.worker_id}/{VERSION}\n".encode())


def hold_in_a_circle(conn: Connection) -> None:
    """Leave a frame that has *conn* to the garbage collector."""
    circle: list[BaseException] = []
    try:
        conn.state["no such key"]
    except KeyError as error:
        circle.append(error)  # it has this frame, which has the list


async def answered(conn: Connection, word: str, argument: str) -> object:
    match word:
        case "sleep":
            await asyncio.sleep(float(argument))
        case "stream":
            while True:
                conn.send(b"tick\n")
                await conn.drain()
                await asyncio.sleep(0.01)
        case "tuple" | "set":
            conn.state["odd"] = (1, 2) if word == "tuple" else {1, 2}
        case "circle":
            hold_in_a_circle(conn)
        case "calls":
            return ",".join(calls)
        case "id":
            return f"{conn.id} {len(conn.state)}"
        case "seen":
            return conn.state["seen"]
    return word
