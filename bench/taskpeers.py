"""The task queues beside procd: an app of each, how its workers are started, a driver for it.

All alike: a task that returns its argument, WORKERS worker processes that run one task at a time,
started by the documented command line, results asked for by the documented call. Where that polls
with a growing pause, the pause is set short: a peer is not to look slow for its defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

WORKERS = 2
REDIS, REDIS_SYNCED, NO_BROKER = "redis", "redis, each write synced", ""

# Each app has WINDOW tasks under way at most: send() returns a handle, get() its result.
HUEY = """\
from huey import {cls}

huey = {cls}("bench", {where}, results=True)

@huey.task()
def echo(value):
    return value

def send(value):
    return echo(value)

def get(handle):
    return handle.get(blocking=True, timeout=30, backoff=1, max_delay=0.0005)
"""
DRAMATIQ = """\
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
import redis

client = redis.Redis(unix_socket_path={socket!r})
broker = RedisBroker(client=client)
broker.add_middleware(Results(backend=RedisBackend(client=client)))
dramatiq.set_broker(broker)

@dramatiq.actor(store_results=True)
def echo(value):
    return value

def send(value):
    return echo.send(value)

def get(handle):
    return handle.get_result(block=True, timeout=30_000)
"""
RQ = """\
import redis
from rq import Queue

import peer_tasks

queue = Queue(connection=redis.Redis(unix_socket_path={socket!r}))

def send(value):
    return queue.enqueue(peer_tasks.echo, value)

def get(handle):
    return handle.latest_result(timeout=30).return_value
"""
CELERY = """\
from celery import Celery

app = Celery("peer_app", broker="redis+socket://{socket}", backend="redis+socket://{socket}")
app.conf.worker_prefetch_multiplier = 64
app.conf.task_acks_late = True
app.conf.broker_connection_retry_on_startup = True

@app.task
def echo(value):
    return value

def send(value):
    return echo.delay(value)

def get(handle):
    return handle.get(timeout=30, interval=0.0005)
"""
TASKIQ = """\
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

URL = "unix://{socket}"
broker = ListQueueBroker(url=URL).with_result_backend(RedisAsyncResultBackend(redis_url=URL))

@broker.task
async def echo(value):
    return value

async def open():
    await broker.startup()

async def send(value):
    return await echo.kiq(value)

async def get(handle):
    return (await handle.wait_result(check_interval=0.0005, timeout=30)).return_value
"""


@dataclass(frozen=True)
class Peer:
    """One row of the table. *argv* are modules of this Python and their arguments."""

    name: str
    module: str  # that must be installed
    app: str
    argv: tuple[str, ...]
    broker: str = REDIS
    copies: int = 1  # of the command, where it has one process each
    is_durable: bool = False  # what was accepted outlives a power cut


def huey(cls: str, where: str) -> str:
    return HUEY.replace("{cls}", cls).replace("{where}", where)


CONSUMER = ("huey.bin.huey_consumer", "peer_app.huey", "-w", str(WORKERS), "-k", "process")
FAST = ("-d", "0.001", "-m", "0.001", "-b", "1")  # how soon an idle consumer looks again
DRAMATIQ_ARGV = ("dramatiq", "peer_app", "--processes", str(WORKERS), "--threads", "1")
CELERY_ARGV = ("celery", "-A", "peer_app", "worker", "-c", str(WORKERS), "-l", "warning")
SQLITE = "filename='huey.db'"
PEERS = (
    Peer("Huey, Redis", "huey", huey("RedisHuey", "url='unix://{socket}'"), CONSUMER),
    Peer("Huey, SQLite", "huey", huey("SqliteHuey", SQLITE), (*CONSUMER, *FAST), NO_BROKER),
    Peer("Dramatiq", "dramatiq", DRAMATIQ, DRAMATIQ_ARGV),
    Peer("RQ, SimpleWorker", "rq", RQ, ("rq.cli", "worker", "-w", "rq.SimpleWorker"), copies=2),
    Peer("Taskiq", "taskiq", TASKIQ, ("taskiq", "worker", "peer_app:broker", "-w", str(WORKERS))),
    Peer("Celery", "celery", CELERY, CELERY_ARGV),
    Peer(
        *("Huey, SQLite, fsync", "huey", huey("SqliteHuey", f"{SQLITE}, fsync=True")),
        *((*CONSUMER, *FAST), NO_BROKER),
        is_durable=True,
    ),
    Peer(
        *("Dramatiq, synced Redis", "dramatiq", DRAMATIQ, DRAMATIQ_ARGV, REDIS_SYNCED),
        is_durable=True,
    ),
    Peer(
        *("Celery, synced Redis", "celery", CELERY, CELERY_ARGV, REDIS_SYNCED),
        is_durable=True,
    ),
)
TASKS = "def echo(value):\n    return value\n"

# Measures from within the peer's own program: rate, then one at a time; JSON to stdout.
DRIVER = """\
import asyncio
import inspect
import json
import sys
import time
from collections import deque

import peer_app

SECONDS, WINDOW, PAYLOAD = float(sys.argv[1]), int(sys.argv[2]), "x" * int(sys.argv[3])
began = time.time()


def plain():
    peer_app.get(peer_app.send(PAYLOAD))
    first = time.time()
    handles, done, since = deque(), 0, time.monotonic()
    while time.monotonic() < since + SECONDS:
        handles.append(peer_app.send(PAYLOAD))
        if len(handles) == WINDOW:
            assert peer_app.get(handles.popleft()) == PAYLOAD
            done += 1
    for handle in handles:
        peer_app.get(handle)
    rate = (done + len(handles)) / (time.monotonic() - since)
    took, until = [], time.monotonic() + SECONDS
    while (at := time.monotonic()) < until:
        peer_app.get(peer_app.send(PAYLOAD))
        took.append(time.monotonic() - at)
    return first, rate, took


async def awaited():
    await peer_app.open()
    await peer_app.get(await peer_app.send(PAYLOAD))
    first = time.time()
    done, since = 0, time.monotonic()

    async def one():
        nonlocal done
        while time.monotonic() < since + SECONDS:
            assert await peer_app.get(await peer_app.send(PAYLOAD)) == PAYLOAD
            done += 1

    await asyncio.gather(*(one() for _ in range(WINDOW)))
    rate = done / (time.monotonic() - since)
    took, until = [], time.monotonic() + SECONDS
    while (at := time.monotonic()) < until:
        await peer_app.get(await peer_app.send(PAYLOAD))
        took.append(time.monotonic() - at)
    return first, rate, took


first, rate, took = asyncio.run(awaited()) if hasattr(peer_app, "open") else plain()
print(json.dumps({"first": first, "rate": rate, "trips": took}))
"""
