"""What the base process finds when it looks at the files that count."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from procd.spawn import sources


def test_digest_is_the_hash_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "app.py"
    path.write_text("x = 1\n")

    assert sources.digest([str(path)]) == {str(path): hashlib.sha256(b"x = 1\n").hexdigest()}


def test_what_is_no_readable_file_has_no_digest_and_never_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    paths = [str(tmp_path), *(f"{tmp_path}/{name}" for name in ("fifo", "loop", "none", "a\0b"))]

    assert sources.digest(paths) == dict.fromkeys(paths)
    assert sources.fingerprint(paths[:-1], ()) == {}


def test_large_file_is_read_in_part_and_a_change_behind_it_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_READ_BYTES", 3)
    path = tmp_path / "data"
    path.write_text("abcdef")
    before = sources.digest([str(path)])

    path.write_text("abcxyz")
    os.utime(path, ns=(1, 1))

    assert sources.digest([str(path)]) != before


def test_fingerprint_changes_with_content_replacement_and_absence(tmp_path: Path) -> None:
    path = tmp_path / "app.py"
    seen = []
    path.write_text("1")
    os.utime(path, ns=(1, 1))
    seen.append(sources.fingerprint([str(path)], ()))
    path.write_text("2")
    seen.append(sources.fingerprint([str(path)], ()))
    os.utime(path, ns=(1, 1))
    (tmp_path / "new").write_text("3")
    os.utime(tmp_path / "new", ns=(1, 1))
    (tmp_path / "new").rename(path)
    seen.append(sources.fingerprint([str(path)], ()))
    path.unlink()
    seen.append(sources.fingerprint([str(path)], ()))

    assert len({str(prints) for prints in seen}) == 4
    assert seen[-1] == {}


def test_fingerprint_covers_globs(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.html").touch()

    assert set(sources.fingerprint((), [f"{tmp_path}/**/*.html"])) == {f"{tmp_path}/deep/a.html"}


def test_young_file_is_unsettled(tmp_path: Path) -> None:
    for name in ("old", "young"):
        (tmp_path / name).touch()
    os.utime(tmp_path / "old", (1_700_000_000, 1_700_000_000))
    prints = sources.fingerprint([f"{tmp_path}/old", f"{tmp_path}/young"], ())

    assert sources.unsettled(prints, time.time_ns()) == {f"{tmp_path}/young"}
