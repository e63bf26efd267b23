"""Saving the app's source reloads it; nothing else does."""

from __future__ import annotations

from functools import partial

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service, pause


@pytest.fixture
def watched(serve: Serve) -> Service:
    return serve(watch_file=True)


def serves(service: Service, version: str) -> bool:
    return bool(service.ask("VERSION") == version)


def quiet_for(service: Service, seconds: float) -> None:
    """Assert that no reload happens in a window; a window is measured, not waited for."""
    before = service.status()["generation"]
    pause(seconds)
    assert service.status()["generation"] == before


@pytest.mark.short
def test_save_serves_the_new_code_and_status_shows_the_cause(watched: Service) -> None:
    watched.app_path.write_text(watched.app_path.read_text().replace('"1"', '"2"', 1))
    watched.wait_for(lambda: serves(watched, "2"), 5)
    assert watched.task("VERSION") == "2"
    (cause,) = watched.status()["reload"]["cause"]
    assert cause.endswith("app.py")


def test_edits_of_the_same_size_in_the_same_second_are_seen(watched: Service) -> None:
    for old, new in ("12", "23", "34"):
        watched.edit(f'VERSION = "{old}"', f'VERSION = "{new}"')
        watched.wait_for(partial(serves, watched, new), 5)


def test_edit_during_the_boot_is_not_lost(watched: Service) -> None:
    watched.edit('VERSION = "1"', 'VERSION = "2"\ntime.sleep(0.5)')
    pause(0.2)
    watched.edit('VERSION = "2"\ntime.sleep(0.5)', 'VERSION = "3"')
    watched.wait_for(lambda: serves(watched, "3"), 5)


def test_atomic_rename_of_an_editor_is_seen(watched: Service) -> None:
    watched.edit('VERSION = "1"', 'VERSION = "2"')  # edit() writes beside and renames
    watched.wait_for(lambda: serves(watched, "2"), 5)
    backup = watched.root / "app.py~"
    text = watched.app_path.read_text()
    watched.app_path.rename(backup)
    watched.app_path.write_text(text.replace('"2"', '"3"', 1))
    watched.wait_for(lambda: serves(watched, "3"), 5)


def test_touch_without_a_change_does_not_reload(watched: Service) -> None:
    watched.app_path.touch()
    watched.app_path.write_text(watched.app_path.read_text())
    quiet_for(watched, 1)


def test_log_and_data_files_beside_the_app_do_not_reload(watched: Service) -> None:
    for number in range(20):
        with (watched.root / "access.log").open("a") as log:
            log.write(f"{number}\n")
        (watched.root / f"data{number}.json").write_text("{}")
    (watched.root / "not_imported.py").write_text("x = 1\n")
    quiet_for(watched, 1)


def test_new_module_that_the_app_then_imports_is_watched(watched: Service) -> None:
    module = watched.root / "beside.py"
    module.write_text("NAME = 'one'\n")
    watched.edit("import ast\n", "import ast\nimport beside\n")
    watched.wait_for(lambda: watched.ask("'beside' in globals() and beside.NAME") == "one", 5)
    module.write_text("NAME = 'two'\n")
    watched.wait_for(lambda: watched.ask("beside.NAME") == "two", 5)


def test_package_in_a_new_folder_is_watched(watched: Service) -> None:
    package = watched.root / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "deep.py").write_text("NAME = 'one'\n")
    watched.edit("import ast\n", "import ast\nfrom package import deep\n")
    watched.wait_for(lambda: watched.ask("'deep' in globals()"), 5)
    (package / "deep.py").write_text("NAME = 'two'\n")
    watched.wait_for(lambda: watched.ask("deep.NAME") == "two", 5)


def test_moved_folder_is_watched_in_its_place(watched: Service) -> None:
    for name, value in (("old", "one"), ("fresh", "two")):
        (watched.root / name).mkdir()
        (watched.root / name / "__init__.py").write_text(f"NAME = '{value}'\n")
    watched.edit("import ast\n", "import ast\nimport old\n")
    watched.wait_for(lambda: watched.ask("'old' in globals() and old.NAME") == "one", 5)
    (watched.root / "old").rename(watched.root / "away")
    (watched.root / "fresh").rename(watched.root / "old")
    watched.wait_for(lambda: watched.ask("old.NAME") == "two", 5)
    (watched.root / "old" / "__init__.py").write_text("NAME = 'three'\n")
    watched.wait_for(lambda: watched.ask("old.NAME") == "three", 5)


def test_deleted_module_is_refused_and_serves_again_when_it_is_back(make: Serve) -> None:
    service = make(watch_file=True)
    module = service.root / "beside.py"
    module.write_text("NAME = 'one'\n")
    service.edit("import ast\n", "import ast\nimport beside\n")
    service.start()
    module.unlink()
    service.wait_for(lambda: service.status()["reload"]["state"] == "refused", 5)
    assert service.ask("beside.NAME") == "one"
    module.write_text("NAME = 'two'\n")
    service.wait_for(lambda: service.ask("beside.NAME") == "two", 5)


def test_bad_save_is_refused_and_the_next_good_one_serves(watched: Service) -> None:
    good = watched.app_path.read_text()
    watched.app_path.write_text("def (:\n")
    watched.wait_for(lambda: watched.status()["reload"]["state"] == "refused", 5)
    assert "SyntaxError" in (watched.status()["reload"]["error"] or "")
    assert serves(watched, "1")
    watched.app_path.write_text(good.replace('"1"', '"2"', 1))
    watched.wait_for(lambda: serves(watched, "2"), 5)


def test_globs_of_watch_extra_reload_too(make: Serve) -> None:
    service = make(watch_file=True, watch_extra=["templates/*.html"])
    (service.root / "templates").mkdir()
    page = service.root / "templates" / "page.html"
    page.write_text("one")
    service.start()
    # By rename: written in place it is empty for a moment, which is a content of its own.
    fresh = service.root / "fresh"
    fresh.write_text("two")
    fresh.replace(page)
    service.wait_for(lambda: service.status()["generation"] == 2, 5)
    fresh.write_text("new")
    fresh.replace(page.with_name("new.html"))
    service.wait_for(lambda: service.status()["generation"] == 3, 5)
    (service.root / "templates" / "page.css").write_text("no html")
    quiet_for(service, 0.5)


def test_a_burst_of_saves_is_few_reloads(watched: Service) -> None:
    for number in range(1, 40):
        watched.edit(f'VERSION = "{number}"', f'VERSION = "{number + 1}"')
        pause(0.005)
    watched.wait_for(lambda: serves(watched, "40"), 5)
    assert watched.status()["generation"] <= 6


def test_watch_file_false_watches_nothing(service: Service) -> None:
    service.edit('VERSION = "1"', 'VERSION = "2"')
    quiet_for(service, 1)
    assert serves(service, "1")


def test_polling_sees_a_save_too(serve: Serve) -> None:
    service = serve(watch_file=True, watch_poll=True)
    service.edit('VERSION = "1"', 'VERSION = "2"')
    service.wait_for(lambda: serves(service, "2"), 10)


def test_edit_of_the_config_applies_live(watched: Service) -> None:
    watched.configure(worker_num=3)
    watched.wait_for(lambda: len(watched.pids("worker")) == 3, 5)


def test_invalid_edit_of_the_config_changes_nothing_and_stands_in_status(
    watched: Service,
) -> None:
    good = watched.config_path.read_text()
    before = watched.seats()
    watched.config_path.write_text("worker_num: many\n" + good.replace("worker_num", "#"))
    watched.wait_for(lambda: watched.status()["config"]["error"], 5)
    assert f"{watched.config_path}:1:" in (watched.status()["config"]["error"] or "")
    assert watched.seats() == before
    watched.wait_for(lambda: f"{watched.config_path}:1:" in watched.log(), 5)
    watched.config_path.write_text(good)
    watched.wait_for(lambda: watched.status()["config"]["error"] is None, 5)
    assert serves(watched, "1")
