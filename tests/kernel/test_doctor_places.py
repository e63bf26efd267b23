"""What a user may do in a folder is asked of the kernel, as that user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from procd.doctor import machine, places
from procd.doctor.facts import Place, Who
from tests.pure.configs import loaded

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
NOBODY = machine.who(65534)


def looked(folder: Path, master: Who) -> dict[str, Place]:
    config = loaded(folder, "task_slots: 64")
    return {place.key: place for place in places.look(config, master, NOBODY)}


def test_who_may_not_write_is_known_before_a_start_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    found = looked(tmp_path, NOBODY)
    expected = f"may not write {tmp_path} (to make {tmp_path / 'state'})"
    assert expected in str(found["state_dir"].problem)
    assert found["chdir"].problem is None, "it may read"


def test_who_owns_the_folder_may(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY.uid, -1)
    assert {place.problem for place in looked(tmp_path, NOBODY).values()} == {None}


def test_workers_must_be_able_to_pass_through_run_dir(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "run").mkdir(0o700)
    found = looked(tmp_path, machine.who(0))
    assert found["run_dir"].problem == f"{NOBODY.name} may not enter {tmp_path}/run"


def test_nothing_is_left_of_the_process_that_asked(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    looked(tmp_path, NOBODY)
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
