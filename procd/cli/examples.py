"""What `procd COMMAND --help` and the man page show beside the options, by the command's words."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "init": ("procd init", "procd init shop"),
    "start": (
        "procd start",
        "procd -c /srv/shop/config/procd.yaml start --foreground",
        "procd start --foreground --single",
        "procd start -s worker_num=8 -s 'listen=[\"tcp://0.0.0.0:80\"]'",
    ),
    "stop": ("procd stop", "procd stop --timeout 5", "procd stop --discard"),
    "restart": ("procd restart", "procd restart -s log_level=debug"),
    "reload": ("procd reload", "procd reload --tasks"),
    "scale": ("procd scale worker=8", "procd scale worker=4 task=16"),
    "status": ("procd status", "watch -c -n1 procd status", "procd status --json | jq .tasks"),
    "check": ("procd check && procd reload", "procd check -s worker_num=auto"),
    "logs": ("procd logs -f", "procd logs --worker 1 --level warning -n 100", "procd logs --json"),
    "stacks": ("procd stacks", "procd stacks 0"),
    "doctor": ("procd doctor", "procd -c /etc/procd/shop.yaml doctor --json"),
    "systemd print": ("procd systemd print shop", "procd systemd print --user"),
    "systemd install": (
        "procd -c /srv/shop/config/procd.yaml systemd install",
        "procd systemd install --user --force shop",
    ),
    "task send": (
        "procd task send app.resize a.png 100",
        "procd task send app.report '{\"month\": 7}' --wait --timeout 60",
        "procd task send app.report -o delivery=durable -o key=nightly",
    ),
    "task list": (
        "procd task list --state dead",
        "procd task list --json | jq '.[] | select(.attempts > 1)'",
    ),
    "task show": ("procd task show 1867262410915643392",),
    "task retry": ("procd task retry 1867262410915643392", "procd task retry --all"),
    "task cancel": ("procd task cancel 1867262410915643392",),
    "task purge": ("procd task purge", "procd task purge 1867262410915643392"),
    "queue status": ("procd queue status", "procd queue status --json | jq .slots.queued"),
    "queue clean": ("procd queue clean --dry-run", "procd queue clean"),
    "queue ls": ("procd queue ls", "procd queue ls --json"),
    "queue stat": ("procd queue stat 1963150487", "procd queue stat /srv/app/key:a"),
    "queue send": (
        "procd queue send 0x75034c97 'a word'",
        "procd queue send 0x75034c97 --type 3 --format json '{\"n\": 7}'",
        "procd queue send 0x75034c97 --format raw < body.bin",
    ),
    "queue receive": (
        "procd queue receive 0x75034c97 --timeout 5",
        "procd queue receive 0x75034c97 --type -10 --count 0 --format php",
    ),
    "queue peek": (
        "procd queue peek",
        "procd queue peek 0x75034c97",
        "procd queue peek 0x75034c97 --type 3 --json",
    ),
    "queue rejected": ("procd queue rejected", "procd queue rejected --json"),
    "queue rm": ("procd queue rm 0x75034c97", "procd queue rm 1 2 3"),
    "completion": (
        'eval "$(procd completion bash)"    # in ~/.bashrc; zsh: in ~/.zshrc',
        "procd completion fish > ~/.config/fish/completions/procd.fish",
    ),
    "man": (
        "procd man | man -l -",
        "procd man > /usr/local/share/man/man1/procd.1",
    ),
}


def epilog(words: str) -> str | None:
    """Return the examples of a command as click prints them after its options."""
    lines = EXAMPLES.get(words)
    if lines is None:
        return None
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
