"""An edit of the running service's config that cannot be applied changes nothing."""

from __future__ import annotations

from tests.service.edits import BOTH_WAYS, Begin, apply, free_port, loaded, refuse, restore, serves

FAULTS = {
    "unknown key": ("wroker_num: 3\n", "unknown key"),
    "broken syntax": ("listen: [tcp://127.0.0.1\n", "procd.yaml:"),
    "wrong value": ("worker_num: many\n", "worker_num"),
    "anchor": ("env: {A: &a x, B: *a}\n", "anchor"),
    "too large": ("#" * (1 << 20) + "\n", "1 MiB"),
}


@BOTH_WAYS
def test_faulty_edits_are_refused_and_taken_back(begin: Begin, way: str) -> None:
    service = begin(way)
    good = service.config_path.read_text()
    generation = 1
    with loaded(service):
        for text, words in FAULTS.values():
            service.config_path.write_text(good + text)
            refuse(service, way, words)
            restore(service, way, good)
            generation += way == "reload"
            assert service.status()["generation"] == generation
        service.config_path.write_text("")
        refuse(service, way, "app: is missing")
        restore(service, way, good)
    assert service.ask("VERSION") == "1"


def test_file_that_is_emptied_and_written_ends_with_what_was_written(
    begin: Begin,
) -> None:
    service = begin("watch")
    app, *lines = service.config_path.read_text().splitlines()
    text = "\n".join([*lines, app])  # a part of it is no config
    with loaded(service):
        for count in (3, 1, 4):
            service.config_path.write_text("")
            service.wait_for(lambda: service.status()["config"]["error"], 10)
            for line in text.replace("worker_num: 2", f"worker_num: {count}").splitlines():
                with service.config_path.open("a") as file:
                    file.write(line + "\n")
            service.wait_for(lambda count=count: len(service.pids("worker")) == count, 10)  # type: ignore[misc]
            service.wait_for(lambda: service.status()["config"]["error"] is None, 10)
    assert service.status()["generation"] == 1


def test_edit_with_bad_code_is_refused_as_a_whole(begin: Begin) -> None:
    service = begin("reload")
    listeners = service.status()["listeners"]
    port = free_port()
    with loaded(service):
        service.edit("import ast\n", "import ast\nimport no_such_module\n")
        service.configure(
            worker_num=3, listen=[*service.config["listen"], f"tcp://127.0.0.1:{port}"]
        )
        done = service.run("reload")
        assert done.returncode == 1
        assert "no_such_module" in done.stderr
        assert len(service.pids("worker")) == 2
        assert service.status()["listeners"] == listeners
        assert not serves(("127.0.0.1", port))
        service.edit("import no_such_module\n", "")
        assert f"listen + tcp://127.0.0.1:{port}" in service.reload().stdout
    assert len(service.pids("worker")) == 3
    assert serves(("127.0.0.1", port))


def test_edit_that_is_in_effect_at_once_does_not_wait_for_good_code(begin: Begin) -> None:
    service = begin("watch")
    service.edit("import ast\n", "import ast\nimport no_such_module\n")
    service.wait_for(lambda: service.status()["reload"]["state"] == "refused", 10)
    apply(service, "watch", lambda: len(service.pids("worker")) == 3, worker_num=3)
    assert service.status()["reload"]["state"] == "refused"
    assert "no_such_module" in (service.status()["reload"]["error"] or "")
    service.edit("import no_such_module\n", "")
    service.wait_for(lambda: service.status()["reload"]["state"] == "ok", 10)
    assert len(service.pids("worker")) == 3
