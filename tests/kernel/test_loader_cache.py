"""Code that is known is not compiled twice, and outlives a disk in a half-written state."""

from __future__ import annotations

import marshal
import os
import shutil
import time
from pathlib import Path

import pytest

from procd.spawn.codecache import CodeCache
from tests.kernel.forked import needs_root
from tests.kernel.interpreter import Told, load, sha256

PINNED = ("app.py", "pkg/__init__.py", "pkg/models.py", "space/deep.py")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "state" / "code"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    root = tmp_path / "app"
    for name, text in {
        "app.py": "from pkg.models import value\nimport space.deep\n",
        "pkg/__init__.py": "",
        "pkg/models.py": "value = 'good'\n",
        "space/deep.py": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def entries(cache: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in cache.iterdir()}


def test_second_import_takes_the_code_from_the_cache(app: Path, cache: Path) -> None:
    load(app, cache=cache)
    before = {entry.name: entry.stat().st_ino for entry in cache.iterdir()}

    load(app, cache=cache)

    assert {entry.name: entry.stat().st_ino for entry in cache.iterdir()} == before
    assert len(before) == 4


def test_code_really_comes_from_the_cache(app: Path, cache: Path) -> None:
    models = app / "pkg" / "models.py"
    script = (
        "__import__('procd.spawn.codecache', fromlist=['x']).CodeCache(cache).put("
        f"p := {str(models)!r}, {sha256(models)!r}, compile('value = 7', p, 'exec'))"
    )
    load(app, cache=cache, then=script)

    assert load(app, cache=cache).value == 7


def test_folder_is_for_its_owner_alone(app: Path, cache: Path) -> None:
    cache.mkdir(mode=0o755, parents=True)

    load(app, cache=cache)

    assert cache.stat().st_mode & 0o777 == 0o700
    assert {entry.stat().st_mode & 0o777 for entry in cache.iterdir()} == {0o600}


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\0" * 5000, marshal.dumps("no code")])
def test_damaged_entry_is_ignored_and_written_anew(app: Path, cache: Path, damage: bytes) -> None:
    load(app, cache=cache)
    sound = entries(cache)
    for entry in cache.iterdir():
        entry.write_bytes(damage)

    told = load(app, cache=cache)

    assert told.value == "good"
    assert entries(cache) == sound


def test_truncated_entry_is_ignored(app: Path, cache: Path) -> None:
    load(app, cache=cache)
    for entry in cache.iterdir():
        os.truncate(entry, entry.stat().st_size - 1)

    assert load(app, cache=cache).value == "good"


@needs_root
def test_folder_of_somebody_else_is_not_used(app: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    os.chown(cache, 12345, 12345)

    told = load(app, cache=cache)

    assert told.value == "good"
    assert "procd.loader: code cache not used" in told.log
    assert not entries(cache)


def test_link_in_place_of_the_folder_is_not_used(app: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    cache.parent.mkdir()
    cache.symlink_to(tmp_path / "elsewhere")

    told = load(app, cache=cache)

    assert told.value == "good"
    assert "not used" in told.log
    assert not entries(tmp_path / "elsewhere")


def reborn(app: Path, cache: Path, known: Told) -> Told:
    return load(app, cache=cache, pinned=known.sources)


def test_pinned_code_survives_a_half_written_file(app: Path, cache: Path) -> None:
    known = load(app, cache=cache)
    (app / "pkg" / "models.py").write_text("def (:\n")

    told = reborn(app, cache, known)

    assert (told.value, told.error) == ("good", None)
    assert told.sources == known.sources


def test_pinned_code_survives_deleted_and_moved_folders(app: Path, cache: Path) -> None:
    known = load(app, cache=cache)
    (app / "pkg").rename(app / "away")
    shutil.rmtree(app / "space")
    (app / "app.py").unlink()
    assert reborn(app, cache, known).value == "good"

    shutil.rmtree(app)
    assert reborn(app, cache, known).value == "good"


def test_pinned_code_survives_a_package_in_a_module_s_place(app: Path, cache: Path) -> None:
    known = load(app, cache=cache)
    (app / "pkg" / "models.py").unlink()
    (app / "pkg" / "models").mkdir()
    (app / "pkg" / "models" / "__init__.py").write_text("value = 'bad'\n")

    assert reborn(app, cache, known).value == "good"


def test_pinned_app_given_as_a_file_survives(app: Path, cache: Path) -> None:
    known = load(app, "app.py:value", cache=cache)
    (app / "app.py").unlink()

    assert load(app, "app.py:value", cache=cache, pinned=known.sources).value == "good"


def test_module_that_is_not_pinned_comes_from_the_disk(app: Path, cache: Path) -> None:
    known = load(app, cache=cache)
    (app / "late.py").write_text("value = 'late'\n")

    told = load(app, cache=cache, pinned=known.sources, then="__import__('late').value")

    assert told.value == "late"


def test_pinned_code_that_the_cache_lost_is_read_from_the_disk(app: Path, cache: Path) -> None:
    known = load(app, cache=cache)
    shutil.rmtree(cache)
    (app / "pkg" / "models.py").write_text("value = 'new'\n")

    told = reborn(app, cache, known)

    assert told.value == "new"
    assert "procd.loader: pinned code is not in the cache" in told.log
    assert told.sources[str(app / "pkg/models.py")] == sha256(app / "pkg/models.py")


def test_pinned_code_that_is_damaged_is_read_from_the_disk(app: Path, cache: Path) -> None:
    known = load(app, cache=cache)
    for entry in cache.iterdir():
        entry.write_bytes(b"garbage")

    told = reborn(app, cache, known)

    assert told.value == "good"
    assert "procd.loader: pinned code is damaged" in told.log


def test_pruning_keeps_what_is_young_and_what_is_named(app: Path, cache: Path) -> None:
    known = load(app, cache=cache)
    held = CodeCache(cache)
    assert held.prune(()) == 0

    for entry in cache.iterdir():
        os.utime(entry, (time.time() - 100_000,) * 2)

    assert held.prune(list(known.sources.items())[:1]) == 3
    assert len(entries(cache)) == 1


def test_pruning_leaves_what_is_no_entry(cache: Path) -> None:
    """The manifests of generations lie in the same folder."""
    held = CodeCache(cache)
    (cache / "generation-7").touch()
    os.utime(cache / "generation-7", (time.time() - 100_000,) * 2)
    assert held.prune(()) == 0
    assert list(entries(cache)) == ["generation-7"]
