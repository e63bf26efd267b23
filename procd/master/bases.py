"""Which base there should be: a cold one at once, then beside it one with modules preloaded.

Pure. A base is cold (it has procd alone imported) or warm (third-party modules as well). The
cold one is always right and always quick to have, so every doubt about a warm one ends in a
cold one, and a new warm one is made beside it while the service goes on. Which modules: those
that a person names, or (auto) those that templates and workers were seen to import.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from procd.config.schema import Config
from procd.spawn.allowance import Allowance

Modules = Mapping[str, str | None]  # name → the file it must come from, None = any

MOST_DEATHS = 2  # while one package is imported: by then it is not somebody's kill any more
SETTLED_SECONDS = 5.0  # a base that is older has not died of what it imports


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a base imports before it forks, in which environment, and what it is allowed."""

    modules: Modules = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    allowance: Allowance = field(default_factory=Allowance)


class Bases:
    """Bases are numbered; *number* is the one that forks, *next_number* one that is warming."""

    def __init__(self, config: Config) -> None:
        self.number = 0
        self.next_number: int | None = None
        self._next_is_ready = False
        self.left_out: dict[str, str] = {}  # package → what its import opens
        self._config = config
        self._seen: dict[str, str | None] = {}  # by templates and workers, in order
        self._last = 0
        self._importing: dict[int, str] = {}  # which package each base is at
        self._deaths: Counter[str] = Counter()  # of bases, by that package; "": at none
        self._failed: Recipe | None = None  # given up: bases died of it, of no package in it
        # What a person names is there from the start on: he has asked for it.
        self._recipes = {0: self._wanted() if isinstance(config.preload, tuple) else self._cold()}

    @property
    def is_warm(self) -> bool:
        """Tell whether a new generation will find imported all that is to be preloaded."""
        return self._recipes[self.number] == self._wanted()

    @property
    def preloaded(self) -> int:
        return len(self._recipes[self.number].modules)

    def recipe(self, number: int) -> Recipe:
        return self._recipes.get(number) or self._cold()

    def learn(self, modules: Mapping[str, str]) -> None:
        """A process that serves has imported these."""
        self._seen |= modules

    def settle(self, config: Config) -> None:
        """An attempt to reload is over: have a warm base made if this one lacks something."""
        self._config = config
        wanted = self._wanted()
        if self.next_number is None and wanted not in (self.recipe(self.number), self._failed):
            self.next_number = self._new(wanted)

    def begin(self, config: Config) -> None:
        """An attempt begins: a base of another environment or allowance does not serve it."""
        self._config = config
        numbers = (self.number, self.next_number)
        recipes = [self.recipe(number) for number in numbers if number is not None]
        cold = self._cold()
        if any(
            recipe.allowance != cold.allowance or (recipe.modules and recipe.env != config.env)
            for recipe in recipes
        ):
            self.go_cold()

    def disk_changed(self) -> None:
        """What was imported is not what there is any more: go cold, and try anew what failed."""
        self.left_out.clear()
        self.forgive()
        self.go_cold()

    def forgive(self) -> None:
        """Somebody asks for a reload himself: what was given up gets another chance."""
        self._deaths.clear()
        self._failed = None

    def go_cold(self) -> None:
        """Do with a cold base from now on, until settle() has a warm one made."""
        self.number, self.next_number = self._new(self._cold()), None

    def imports(self, number: int, package: str) -> None:
        """A base is about to import *package*."""
        self._importing[number] = package

    def became_ready(self, number: int) -> None:
        """A base is up."""
        self._importing.pop(number, None)
        if number == self.next_number:
            self._next_is_ready = True

    def take_over(self) -> bool:
        """Have the warm base take over if it is up. Not during an attempt, which forks from one."""
        if self.next_number is None or not self._next_is_ready:
            return False
        self.number, self.next_number = self.next_number, None
        return True

    def is_unfit(self, number: int, culprit: str, why: str) -> None:
        """The base *number* could not be forked from after importing *culprit*, and leaves."""
        package = culprit.partition(".")[0]
        self.left_out.setdefault(package, why)
        if number == self.next_number:
            self.next_number = self._new(self._wanted())
        elif number == self.number:
            self.number = self._new(self._wanted())

    def died(self, number: int, why: str, lived: float, *, is_late: bool) -> str | None:
        """A base has died after *lived* seconds; *is_late*: killed, for it hung.

        Once may have been anybody's kill: another is warmed. A package at whose import bases
        keep dying is left out, and returned. "" is returned if no package is to blame, and all
        is given up.
        """
        if number not in (self.number, self.next_number):
            return None  # it was told to go
        package = self._importing.pop(number, "")
        recipe = self.recipe(number)
        if package or lived < SETTLED_SECONDS:
            self._deaths[package] += MOST_DEATHS if is_late and package else 1
        blamed = package if self._deaths[package] >= MOST_DEATHS else None
        if blamed:
            self.left_out.setdefault(blamed, why)
        elif blamed == "":
            self._failed, self._deaths[""] = recipe, 0
        if number == self.next_number:
            self.next_number = None
            self.settle(self._config)
        else:
            self._recipes[number] = self._cold()
        return blamed

    def _wanted(self) -> Recipe:
        preload = self._config.preload
        cold = self._cold()
        if preload == "off":
            return cold
        named = isinstance(preload, tuple)
        modules = dict.fromkeys(preload) if named else self._seen
        fit = {n: f for n, f in modules.items() if n.partition(".")[0] not in self.left_out}
        return Recipe(fit, self._config.env, cold.allowance) if fit else cold

    def _cold(self) -> Recipe:
        return Recipe(allowance=Allowance.of(self._config))

    def _new(self, recipe: Recipe) -> int:
        self._last += 1
        self._next_is_ready = False
        self._recipes = {n: r for n, r in self._recipes.items() if n == self.number}
        self._recipes[self._last] = recipe
        return self._last
