"""Name the classes of one kind, so that a configuration can ask for them by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from configs.problems import did_you_mean

Factory = TypeVar("Factory", bound=Callable[..., object])
Made = TypeVar("Made")


class Registry(dict[str, Callable[..., Made]]):
    """Map names to factories of one kind.

    Args:
        kind: what the entries are, for error messages ("encoder").
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def register(self, *names: str) -> Callable[[Factory], Factory]:
        """Return a decorator that enters a class or function under one or more names.

        Args:
            names: the name and its synonyms.

        Returns:
            The decorator; it hands back what it was given.

        Raises:
            ValueError: a name is taken already.
        """

        def enter(factory: Factory) -> Factory:
            for name in names:
                if name in self:
                    raise ValueError(f"{self.kind} '{name}' is registered already, by {self[name]!r}")
                self[name] = factory  # type: ignore[assignment]  # a class of the kind is a factory of it
            return factory

        return enter

    def create(self, name: str, /, **kwargs: object) -> Made:
        """Build the entry called `name`.

        Args:
            name: a registered name.
            kwargs: the keyword arguments of its factory.

        Returns:
            What the factory made.

        Raises:
            ValueError: there is no such name.
        """
        if name not in self:
            raise ValueError(f"unknown {self.kind} '{name}'; {did_you_mean(name, sorted(self))}")
        return self[name](**kwargs)
