"""A parent in Python and its child in PHP: the counterpart of parent_child.php.

python examples/php/parent.py
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from procd.ipc import Queue
from procd.ipc.foreign import php

TO_CHILD, TO_PARENT = 10, 11


def main() -> None:
    """Make a queue of a key that nobody has, talk over it, and remove it."""
    queue = Queue.create()
    try:
        queue.send(php.dump(1234), TO_CHILD)
        child = Path(__file__).with_name("child.php")
        subprocess.run(["php", str(child), str(queue.key)], check=True)  # noqa: S603, S607 - php from PATH
        data, _ = queue.receive(TO_PARENT, timeout=10)
        print("parent got:", php.load(data))
    finally:
        queue.remove()


if __name__ == "__main__":
    main()
