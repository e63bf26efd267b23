"""`make bench-foreign`: the public queue under programs that procd did not write.

    python -m bench.foreign [--messages N] [--rounds N]

Throughput: PHP sends as fast as it can, to a bare loop of msgrcv in Python and to procd's ingress
(which stores each message as a task; two task workers run it meanwhile), in turns. Of procd PHP's
own loop is timed: the queue is small, so it sends as fast as somebody takes.

Hostility: N random and mutated messages, with honest ones among them. Exit status 1 when a promise
is broken.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from statistics import median

import inotify_simple
import sysv_ipc

from bench.mutations import Mutator
from bench.torture import row
from bench.verdict import Verdict
from procd.ipc import Queue, QueueGone
from tests.kernel.queues import free_key
from tests.service import leftovers
from tests.service.daemon import Service, serving
from tests.service.ingress import page

MESSAGES = 1_000_000
ROUNDS = 5
SENT = 20_000  # by PHP in each round
HONEST_EVERY = 100
PATIENCE = 120.0
RSS_SLACK = 2_000_000  # bytes
MSGMAX = 8192

PHP = """
$queue = msg_get_queue((int)$argv[1]);
$text = str_repeat('x', 100);
$began = microtime(true);
for ($n = 0; $n < (int)$argv[2]; $n++) msg_send($queue, 10, $text);
echo microtime(true) - $began;
"""

APP = """
import os

from procd import Server

server = Server()
fd = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@server.on_task
def run(task):
    if isinstance(task.data, str) and task.data.startswith("honest "):
        os.write(fd, task.data.encode() + b"\\n")
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    leftovers.unshare_queues()
    print(throughput(options.rounds), flush=True)
    verdicts = list(hostility(options.messages))
    for verdict in verdicts:
        print(row(verdict))
    return 0 if all(verdict.is_kept for verdict in verdicts) else 1


@contextmanager
def listening(**config: object) -> Iterator[tuple[Service, Queue]]:
    """A service of APP with a public queue."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "app.py")
        path.write_text(APP)
        key = free_key()
        with serving(
            str(path), worker_num=1, task_worker_num=2, message_queue_key=key, **config
        ) as service:
            yield service, Queue.open(key)


# ---------------------------------------------------------------- throughput


def throughput(rounds: int) -> str:
    """Return what was measured, the ratio first: no promise of procd's is about it."""
    with listening() as (service, queue):
        pairs = [(procd_rate(service, queue), bare_rate()) for _ in range(rounds)]
    procd, bare = (median(side) for side in zip(*pairs, strict=True))
    ratio = median(mine / theirs for mine, theirs in pairs)
    rates = f"{procd:,.0f} of {bare:,.0f} messages/s"
    return f"from PHP, beside a bare msgrcv loop: {ratio:.3f} x ({rates}, median of {rounds})"


def procd_rate(service: Service, queue: Queue) -> float:
    before = page(service)["taken"]
    seconds = php(queue.key)
    service.wait_for(lambda: page(service)["taken"] - before >= SENT, PATIENCE)
    service.wait_for(lambda: not service.status()["tasks"]["queued"], PATIENCE)
    return SENT / seconds


def bare_rate() -> float:
    """From the first message to the last, in the receiver."""
    queue = sysv_ipc.MessageQueue(
        free_key(), sysv_ipc.IPC_CREX, mode=0o600, max_message_size=MSGMAX
    )
    sender = subprocess.Popen(
        ["php", "-r", PHP, str(queue.key), str(SENT)], stdout=subprocess.DEVNULL
    )
    try:
        queue.receive()
        began = time.monotonic()
        for _ in range(SENT - 1):
            queue.receive()
        return (SENT - 1) / (time.monotonic() - began)
    finally:
        sender.wait(PATIENCE)
        queue.remove()


def php(key: int) -> float:
    """Send SENT messages; return how long PHP's loop took, in seconds."""
    done = subprocess.run(
        ["php", "-r", PHP, str(key), str(SENT)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return float(done.stdout)


# ---------------------------------------------------------------- hostility


class Baits:
    """Files that no message may have read or deleted, and who looks at them."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "payloads"
        self.folder.mkdir(mode=0o700)
        outside = root / "outside"
        outside.mkdir()
        secret = outside / "secret"
        secret.write_bytes(b"hello")
        (self.folder / "link").symlink_to(secret)
        os.mkfifo(self.folder / "fifo")
        (self.folder / "theirs").write_bytes(b"hello")
        os.chown(self.folder / "theirs", 65534, 65534)
        (self.folder / "folder").mkdir()
        self.paths = [
            *(
                b"/etc/passwd",
                b"../outside/secret",
                bytes(secret),
                b"missing",
                b".",
                b"\xff",
            ),
            *(bytes(self.folder / name) for name in ("link", "fifo", "theirs", "folder")),
            *(b"link", b"fifo", b"theirs", b"folder", b"/dev/zero", b"/proc/self/mem"),
        ]
        self._watch = inotify_simple.INotify(nonblocking=True)
        flags = inotify_simple.flags
        changes = flags.MODIFY | flags.DELETE | flags.DELETE_SELF | flags.MOVED_FROM
        watched = dict.fromkeys((outside, secret, self.folder / "theirs"), flags.ACCESS | changes)
        # That one every command of a shell reads.
        watched[Path("/etc/passwd")] = changes
        self._names = {self._watch.add_watch(path, mask): path for path, mask in watched.items()}
        self._before = self._stand()

    def _stand(self) -> list[tuple[str, int]]:
        return sorted((path.name, path.lstat().st_mode) for path in self.folder.iterdir())

    def touched(self) -> list[str]:
        """Return what has happened to them."""
        seen = {str(self._names[event.wd]) for event in self._watch.read(timeout=0)}
        now = self._stand()
        return [*sorted(seen), *(["the folder's files"] if now != self._before else [])]

    def close(self) -> None:
        self._watch.close()


def hostility(count: int) -> Iterator[Verdict]:
    root = Path(tempfile.mkdtemp(prefix="pb"))
    try:
        with (
            closing(Baits(root)) as baits,
            listening(task_tmpdir=str(baits.folder)) as (service, queue),
        ):
            yield from flood(service, queue, baits, count)
            service.stop()
            with suppress(QueueGone):
                queue.remove()  # the stop has kept it, for the answers that nobody read
    finally:
        shutil.rmtree(root)


def flood(service: Service, queue: Queue, baits: Baits, count: int) -> Iterator[Verdict]:
    mutator = Mutator(random.Random(1), baits.paths)
    (pid,) = service.pids("ingress")
    began = time.monotonic()
    early = 0
    for number in range(count):
        queue.send(*mutator.next(), timeout=PATIENCE)
        if number % HONEST_EVERY == 0:
            queue.send(b"honest %d" % (number // HONEST_EVERY), 10, timeout=PATIENCE)
        if number == count // 10:
            early = rss(pid)
    honest = -(-count // HONEST_EVERY)
    service.wait_for(lambda: len(service.ledger_path.read_bytes().splitlines()) >= honest, PATIENCE)
    seconds = time.monotonic() - began
    served = sorted(int(line.split()[1]) for line in service.ledger_path.read_bytes().splitlines())
    text = f"{len(served):,} of {honest:,}, among {count:,} in {seconds:.0f} s"
    yield Verdict("each honest message is served, once", text, served == list(range(honest)))
    alive = service.pids("ingress") == [pid]
    told = page(service)
    text = f"pid {'the same' if alive else 'another'}, {told['rejected']}"
    yield Verdict("the ingress lives", text, alive and not told["rejected"].get("fault"))
    grown = rss(pid) - early
    yield Verdict(
        "its memory does not grow", f"{grown / 1e6:+.1f} MB after a tenth", grown <= RSS_SLACK
    )
    touched = baits.touched()
    yield Verdict("no file is touched", ", ".join(touched) or "none", not touched)


def rss(pid: int) -> int:
    """Resident bytes."""
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in rows if line.startswith("VmRSS:")).split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
