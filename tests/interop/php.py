"""The real PHP: a program or a few lines of it, run to the end or beside the test."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.service.daemon import REPOSITORY

EXAMPLES = REPOSITORY / "examples" / "php"
PATH = shutil.which("php")
SECONDS = 30.0
_PROBE = "exit(function_exists('msg_send') && function_exists('pcntl_fork') ? 0 : 1);"
IS_THERE = PATH is not None and subprocess.run([PATH, "-r", _PROBE], check=False).returncode == 0

Done = subprocess.CompletedProcess[str]


def argv(name: str, *words: str) -> list[str]:
    """The command of examples/php/NAME, in whichever language it is written."""
    interpreter = sys.executable if name.endswith(".py") else "php"
    return [interpreter, str(EXAMPLES / name), *words]


def run(name: str, *words: str) -> Done:
    """Run an example to its end."""
    return subprocess.run(
        argv(name, *words),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        cwd=REPOSITORY,
        env=_environment(),
    )


@contextmanager
def running(name: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """An example beside the test; it must have ended when the block does."""
    with subprocess.Popen(
        argv(name, *words), stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=_environment()
    ) as process:
        try:
            yield process
            process.wait(SECONDS)
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """Read one line that the program prints."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def evaluate(code: str, *values: str) -> str:
    """Run lines of PHP, in which $argv[1] is the first of *values*; what they print."""
    command = ["php", "-d", "display_errors=stderr", "-r", code, "--", *values]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def mapped(function: str, blobs: Iterable[bytes]) -> list[bytes]:
    """What a PHP function of one string makes of each of *blobs*, in one run of PHP."""
    code = f"""
        $all = json_decode(stream_get_contents(STDIN), true, 512, JSON_THROW_ON_ERROR);
        foreach ($all as $one) {{ $out[] = base64_encode(({function})(base64_decode($one))); }}
        echo json_encode($out ?? []);
    """
    sent = json.dumps([base64.b64encode(blob).decode() for blob in blobs])
    command = ["php", "-d", "display_errors=stderr", "-r", code]
    done = subprocess.run(
        command, input=sent, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    found: list[Any] = json.loads(done.stdout)
    return [base64.b64decode(one) for one in found]


def _environment() -> dict[str, str]:
    return {
        "PYTHONPATH": str(REPOSITORY),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
    }
