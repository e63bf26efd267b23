"""The command line as a whole: what it imports, and what each command says of itself."""

from __future__ import annotations

import subprocess
import sys

# What a command alone needs would be in the master, and so in every process of every service.
HEAVY = {
    "csv",
    "email",
    "importlib.metadata",
    "rich.table",
    "shutil",
    "zipfile",
    "procd.doctor.machine",
}


def test_a_master_does_not_begin_with_what_other_commands_need() -> None:
    program = "import sys, procd.cli.main; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert HEAVY & set(done.stdout.split()) == set()
