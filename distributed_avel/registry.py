"""Names for models, extractors and data sets, of this package and of others.

Another package makes its own known by an entry point, which names a module that registers them:

    [project.entry-points."distributed_avel.models"]
    my_model = "my_package.my_model"

So does a module that the setting `plugins` names. Either way the module must be importable
wherever Ray runs workers.
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
        kind: What an item is, for messages, such as "base model".
        key: The setting that names one, for messages.
        group: Of the entry points of other packages.
        error: Raised where there is no item of a name.
    """

    def __init__(self, kind: str, key: str, group: str) -> None:
        self._kind, self._key, self._group = kind, key, group
        self._items: dict[str, Item] = {}

    def register(self, name: str, item: Item) -> None:
        """Make an item known.

        Raises:
            ValueError: The name is taken.
        """
        if name in self._items:
            raise ValueError(f"{self._kind} {name!r} is already registered by {self._items[name]}")
        self._items[name] = item

    def names(self) -> list[str]:
        """All names, in alphabetical order; items of other packages are not imported."""
        return sorted({*self._items, *self._entry_points()})

    def __getitem__(self, name: str) -> Item:
        """The item of a name; if it is one of another package, that is imported.

        Raises:
            ConfigError: There is none, and the message has the names there are; or the module of
                an entry point cannot be imported, or registers no such name.
        """
        if name not in self._items and name in (found := self._entry_points()):
            _import(found[name].module, f"entry point {self._group}:{name}")
            if name not in self._items:
                raise ConfigError(
                    f"entry point {self._group}:{name}: {found[name].module} registers no "
                    f"{self._kind} {name!r}"
                )
        if name not in self._items:
            known = ", ".join(self.names())
            raise ConfigError(f"{self._key}: no {self._kind} {name!r}; there are: {known}")
        return self._items[name]

    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self._group)}


def import_plugins(modules: Iterable[str]) -> None:
    """Import the modules that the setting `plugins` names; they may lie in the current folder.

    Raises:
        ConfigError: One of them cannot be imported.
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
