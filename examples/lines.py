"""A protocol of lines with state: what a client adds up is kept for its connection.

    procd -c config/procd.yaml start --foreground -s app=examples/lines.py:server

Lines are `add N`, `sum` and `quit`. One call of on_receive gets what has come so far: half a line,
or several. What is left over waits in conn.state, as does the sum: plain values that could move to
another process with the connection.
"""

from typing import TypedDict, cast

from procd import Connection, Server

LONGEST = 1000  # bytes; a line without an end must not fill the memory

server = Server()


class State(TypedDict):
    rest: bytes
    sum: int


@server.on_connect
def connect(conn: Connection) -> None:
    conn.state |= {"rest": b"", "sum": 0}
    conn.send(b"add N, sum, quit\n")


@server.on_receive
async def receive(conn: Connection, data: bytes) -> None:
    state = cast("State", conn.state)
    *lines, state["rest"] = (state["rest"] + data).split(b"\n")
    for line in lines:
        match line.split():
            case [b"add", number] if number.isdigit() and len(number) < 10:
                state["sum"] += int(number)
            case [b"sum"]:
                conn.send(b"%d\n" % state["sum"])
            case [b"quit"]:
                conn.send(b"bye\n")
                conn.close()  # after what was sent has gone out
                return
            case _:
                conn.send(b"what?\n")
        await conn.drain()
    if len(state["rest"]) > LONGEST:
        conn.send(b"too long\n")
        conn.close()
