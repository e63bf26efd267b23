"""What was preloaded changes on the disk: no generation mixes the old with the new."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service
from tests.service.site import Site, begin, of_each, wait_warm

VERSIONS = "[lib.V, lib.part.V, user.lib.V]"

CHANGED = "has changed since it was preloaded"


def release(version: int) -> dict[str, str]:
    """Each of another size: Python trusts bytecode by that and by whole seconds."""
    return {
        "lib/__init__.py": f"V = {version}\nfrom lib import part\n" + "#" * version,
        "lib/part.py": f"V = {version}\n" + "#" * version,
        "user.py": "import lib\n",
    }


def first(make: Serve, folder: Path, **config: object) -> tuple[Service, Site]:
    service, site = begin(make, folder, release(1), "import lib, user", **config)
    wait_warm(service)
    assert service.ask(VERSIONS) == [1, 1, 1]
    return service, site


def save(service: Service, version: str) -> None:
    service.edit('VERSION = "', f'VERSION = "{version}')
    service.wait_for(lambda: service.ask("VERSION").startswith(version), 15)


def test_a_new_version_is_in_all_of_the_next_generation(make: Serve, tmp_path: Path) -> None:
    service, site = first(make, tmp_path, watch_file=True)
    for number in (2, 3):
        site.write(release(number))
        assert service.ask(VERSIONS) == [number - 1] * 3
        save(service, str(number))
        assert list(of_each(service, VERSIONS).values()) == [[number] * 3] * 2
        service.wait_for(lambda n=number: service.log().count(CHANGED) == n - 1, 5)  # type: ignore[misc]
        wait_warm(service)
        site.forget()
        service.reload()
        assert service.ask(VERSIONS) == [number] * 3
        assert site.importers("lib") == []
    assert f"{tmp_path}/" in service.log().partition("has changed since")[0].splitlines()[-1]


def test_one_submodule_that_changes_makes_all_of_its_users_new(make: Serve, tmp_path: Path) -> None:
    service, site = first(make, tmp_path)
    site.write({"lib/part.py": "V = 2\n"})
    service.reload()
    assert set(map(tuple, of_each(service, VERSIONS).values())) == {(1, 2, 1)}
    wait_warm(service)
    assert site.importers("user") == ["template", "base", "template", "base"]


def test_a_file_edited_in_place_counts_as_well(make: Serve, tmp_path: Path) -> None:
    service, _ = first(make, tmp_path)
    path = tmp_path / "lib" / "part.py"
    path.write_text(path.read_text().replace("V = 1", "V = 20"))
    service.reload()
    assert service.ask(VERSIONS) == [1, 20, 1]


def test_one_that_is_saved_while_it_is_preloaded_is_seen(make: Serve, tmp_path: Path) -> None:
    """The base holds the old one when it is ready: its fingerprint is older than the file."""
    gate = tmp_path / "gate"
    gate.touch()
    loop = f"import time\nif 'base' in _line[-1]:\n    while os.path.exists({str(gate)!r}):\n"
    service, site = begin(
        make, tmp_path, {**release(1), "slow.py": loop + "        time.sleep(0.01)\n"},
        "import lib, user, slow",
    )  # fmt: skip
    service.wait_for(lambda: "base" in site.importers("slow"), 10)
    site.write(release(2))
    gate.unlink()
    wait_warm(service)
    service.reload()
    assert service.ask(VERSIONS) == [2, 2, 2]


def test_a_library_that_vanishes_is_missed_as_at_a_start(make: Serve, tmp_path: Path) -> None:
    service, site = first(make, tmp_path)
    (tmp_path / "user.py").unlink()
    done = service.run("reload")
    assert done.returncode == 1
    assert "No module named 'user'" in done.stderr
    assert service.ask(VERSIONS) == [1, 1, 1]
    site.write(release(2))
    service.reload()
    assert service.ask(VERSIONS) == [2, 2, 2]
    wait_warm(service)
    site.forget()
    service.reload()
    assert site.importers("lib") == []


def test_an_installation_that_changes_no_preloaded_file_is_seen(
    make: Serve, tmp_path: Path
) -> None:
    """A library that could not import another one has noted so; now that is there."""
    folder = tmp_path / "site-packages"
    optional = "try:\n    import extra\nexcept ImportError:\n    extra = None\n"
    service, site = begin(make, folder, {"lib.py": optional})
    wait_warm(service)
    assert service.ask("lib.extra") is None
    site.write({"extra.py": "X = 1\n"})
    service.reload()
    assert service.ask("lib.extra.X") == 1


@pytest.mark.parametrize("name", ["lib", "lib.part"])
def test_a_module_that_becomes_a_package_is_seen(make: Serve, tmp_path: Path, name: str) -> None:
    service, site = first(make, tmp_path)
    if name == "lib":
        (tmp_path / "lib").rename(tmp_path / "old")
        site.write({"lib.py": "V = 2\nclass part: V = 2\n"})
    else:
        (tmp_path / "lib" / "part.py").unlink()
        site.write({"lib/part/__init__.py": "V = 2\n"})
    service.reload()
    assert service.ask("lib.part.V") == 2
    wait_warm(service)
    service.reload()
    assert service.ask("lib.part.V") == 2
