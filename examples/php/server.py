"""Prints what clients send to the queue 1963150487: the counterpart of server.php.

python examples/php/server.py [COUNT]        (COUNT messages; without it until Ctrl-C)
"""

from __future__ import annotations

import itertools
import json
import signal
import sys

from procd.ipc import Queue
from procd.ipc.foreign import php
from procd.ipc.wire import Undecodable

KEY, TYPE = 1963150487, 10


def main(count: str = "0") -> None:
    """Serve; the queue is ours, and goes with us."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    queue = Queue.create(KEY, exist_ok=True)
    try:
        print("ready", flush=True)
        for _ in itertools.repeat(None, int(count)) if int(count) else itertools.count():
            data, _type = queue.receive(TYPE)
            try:
                print(json.dumps(php.load(data), ensure_ascii=False, default=repr), flush=True)
            except Undecodable as error:
                print(error, file=sys.stderr)  # somebody else's message: the next may be ours
    except KeyboardInterrupt:
        pass
    finally:
        queue.remove()


if __name__ == "__main__":
    main(*sys.argv[1:2])
