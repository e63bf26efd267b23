"""Which base there should be: a cold one at once, then beside it one with modules preloaded.

Pure. A base is cold (it has procd alone imported) or warm (third-party modules as well). The
cold one is always right and always quick to have, so every doubt about a warm one ends in a
cold one, and a new warm one is made beside it while the service goes on. Which modules: those
that a person names, or (auto) those that templates and workers were seen to import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from procd.config.schema import Config

Modules = Mapping[str, str | None]  # name → the file it must come from, None = any


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a base imports before it forks, and in which environment."""

    modules: Modules = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


COLD = Recipe()


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
        self._failed: Recipe | None = None  # a base died of it
        # What a person names is there from the start on: he has asked for it.
        self._recipes = {0: self._wanted() if isinstance(config.preload, tuple) else COLD}

    @property
    def is_warm(self) -> bool:
        """Tell whether a new generation will find imported all that is to be preloaded."""
        return self._recipes[self.number] == self._wanted()

    @property
    def preloaded(self) -> int:
        return len(self._recipes[self.number].modules)

    def recipe(self, number: int) -> Recipe:
        return self._recipes.get(number, COLD)

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
        """An attempt begins: what was imported in another environment does not serve it."""
        self._config = config
        numbers = (self.number, self.next_number)
        recipes = [self.recipe(number) for number in numbers if number is not None]
        if any(recipe.modules and recipe.env != config.env for recipe in recipes):
            self.go_cold()

    def go_cold(self) -> None:
        """Do with a cold base from now on, until settle() has a warm one made."""
        self.number, self.next_number = self._new(COLD), None

    def became_ready(self, number: int) -> None:
        """A base is up."""
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
            self._recipes[number] = self._wanted()

    def died(self, number: int, *, was_ready: bool) -> None:
        """A base has died, by nobody's order: of what it imports, perhaps."""
        if number == self.next_number:
            self.next_number = None
            self._failed = self.recipe(number)
        elif number == self.number:
            if not was_ready:
                self._failed = self.recipe(number)
            self._recipes[number] = COLD

    def _wanted(self) -> Recipe:
        preload = self._config.preload
        if preload == "off":
            return COLD
        named = isinstance(preload, tuple)
        modules = dict.fromkeys(preload) if named else self._seen
        fit = {n: f for n, f in modules.items() if n.partition(".")[0] not in self.left_out}
        return Recipe(fit, self._config.env) if fit else COLD

    def _new(self, recipe: Recipe) -> int:
        self._last += 1
        self._next_is_ready = False
        self._recipes = {n: r for n, r in self._recipes.items() if n == self.number}
        self._recipes[self._last] = recipe
        return self._last
