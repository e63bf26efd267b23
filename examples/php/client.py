"""Sends its argument to whoever serves the queue 1963150487: server.php or server.py.

python examples/php/client.py "this is will"
"""

from __future__ import annotations

import sys

from procd.ipc import Queue, QueueGone
from procd.ipc.foreign import php

KEY, TYPE = 1963150487, 10


def main(text: str = "this is will") -> None:
    """Send it as PHP's msg_send() does: serialized."""
    try:
        queue = Queue.open(KEY, "w")
    except QueueGone:
        sys.exit(f"nobody serves the queue {KEY}: start server.php or server.py")
    queue.send(php.dump(text), TYPE, timeout=10)


if __name__ == "__main__":
    main(*sys.argv[1:2])
