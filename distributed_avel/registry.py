"""Registry of models, extractors and data sets, of this package and of plug-ins.

A plug-in package declares an entry point that names the module which registers its items:

    [project.entry-points."distributed_avel.models"]
    my_model = "my_package.my_model"

Alternatively, the setting `plugins` lists such modules. In both cases, the module must be
importable on every machine on which Ray runs workers.
"""

import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Generic, TypeVar

from distributed_avel.errors import ConfigError

Item = TypeVar("Item")


class Registry(Generic[Item]):
    """Items by name.

    Args:
        kind: Kind of the items, for messages, such as "base model".
        key: Setting that selects an item, for messages.
        group: Group of the entry points of other packages.
    """

    def __init__(self, kind: str, key: str, group: str) -> None:
        self._kind, self._key, self._group = kind, key, group
        self._items: dict[str, Item] = {}

    def register(self, name: str, item: Item) -> None:
        """Register an item.

        Raises:
            ValueError: The name is already registered.
        """
        if name in self._items:
            raise ValueError(f"{self._kind} {name!r} is already registered by {self._items[name]}")
        self._items[name] = item

    def names(self) -> list[str]:
        """Return all names, in alphabetical order, without importing other packages."""
        return sorted({*self._items, *self._entry_points()})

    def __getitem__(self, name: str) -> Item:
        """Return an item by name; import the package of its entry point if necessary.

        Raises:
            ConfigError: There is no such name (the message lists the names), or the module of the
                entry point cannot be imported or does not register the name.
        """
        if name not in self._items and name in (points := self._entry_points()):
            _import(points[name].module, f"entry point {self._group}:{name}")
            if name not in self._items:
                raise ConfigError(
                    f"entry point {self._group}:{name}: {points[name].module} registers no "
                    f"{self._kind} {name!r}"
                )
        if name not in self._items:
            known = ", ".join(self.names())
            raise ConfigError(f"{self._key}: no {self._kind} {name!r}; there are: {known}")
        return self._items[name]

    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self._group)}


def import_plugins(modules: Iterable[str]) -> None:
    """Import the modules of the setting `plugins`, also from the current folder.

    Raises:
        ConfigError: A module cannot be imported.
    """
    for module in modules:
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)
        _import(module, f"plugins: {module}")


def _import(module: str, source: str) -> None:
    try:
        import_module(module)
    except Exception as error:
        raise ConfigError(
            f"{source}: cannot be imported ({type(error).__name__}: {error})"
        ) from error
