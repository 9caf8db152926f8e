"""String names, configs and `get()` for every family of small objects.

A class that joins a registry can be named by a string ("erk"), by a config dict, by
the class or by an instance, wherever the family is accepted, and survives
`model.save` without `custom_objects`.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Self, TypeVar

import keras

PACKAGE = "keras_tickets"

T = TypeVar("T", bound="Configurable")


def spelling(name: str) -> str:
    """Make one key of `"gradual_magnitude"` and `"GradualMagnitude"`."""
    return name.replace("_", "").lower()


def plain(value: Any) -> Any:
    """Return `value` with registered objects replaced by their configs."""
    if hasattr(value, "get_config"):
        return keras.saving.serialize_keras_object(value)
    return value


def revive(value: Any) -> Any:
    """Turn what `plain` made of a registered object back into the object."""
    if isinstance(value, Mapping) and "class_name" in value and "config" in value:
        return keras.saving.deserialize_keras_object(dict(value))
    return value


@contextlib.contextmanager
def config_read(name: str, config: Any) -> Iterator[None]:
    """Say of what is raised in the block that it comes of a config.

    A config may be from anywhere, and what is none raises anything: arguments that do
    not exist, text in place of a number, a mapping that is nested without end.

    Args:
        name: What the config is of.
        config: The config.

    Raises:
        ValueError: For all that is raised but a `ValueError` itself, and but a package
            that is missing.
    """
    try:
        yield
    except (ValueError, ImportError):
        raise
    except Exception as error:
        what = _with_article(name)
        raise ValueError(
            f"{what[0].upper()}{what[1:]} cannot be made of this config: "
            f"{type(error).__name__}: {str(error)[:300]}. Expected what its "
            f"get_config() returns. Received: {_shortened(config)}"
        ) from error


def _shortened(config: Any) -> str:
    try:
        return repr(config)[:300]
    except RecursionError:
        return "what is nested too deep to print"


class Configurable:
    """An object whose config is its constructor's arguments, read back by name."""

    unsaved: tuple[str, ...] = ()
    """Arguments that a config, and a printed object, leave out as `None`."""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, nested objects as configs."""
        return {name: plain(value) for name, value in self._arguments().items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Rebuild the object from `get_config()`.

        Raises:
            ValueError: If an argument is none of the constructor's, or makes no sense.
        """
        with config_read(cls.__name__, config):
            return cls(**{name: revive(value) for name, value in config.items()})

    def _given(self) -> dict[str, Any]:
        """Return the constructor's arguments, all of them."""
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names}

    def _arguments(self) -> dict[str, Any]:
        return {
            name: None if name in self.unsaved else value
            for name, value in self._given().items()
        }

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in self._arguments().items())
        return f"{type(self).__name__}({', '.join(shown)})"


class Registry(Generic[T]):
    """The named members of one family.

    Args:
        family: What a member is called in an error message, such as `"schedule"`.
        base: The class that every member inherits.
        adapt: Turns what is neither a name, a config, a class nor a member into a
            member, or returns `None` when it cannot.
    """

    def __init__(
        self,
        family: str,
        base: type[T],
        adapt: Callable[[Any], T | None] = lambda identifier: None,
    ) -> None:
        self.family = family
        self.base = base
        self.adapt = adapt
        self.members: dict[str, type[T]] = {}

    def register(self, cls: type[T]) -> type[T]:
        """Return `cls`, with its string name and made saveable: a class decorator."""
        self.members[spelling(cls.__name__)] = cls
        # By family: a score and a pruner may both be called Magnitude.
        package = f"{PACKAGE}.{self.family}"
        return keras.saving.register_keras_serializable(package=package)(cls)

    def get(self, identifier: Any, **arguments: Any) -> T:
        """Return the member that a name, config, class or instance stands for.

        Args:
            identifier: What the user wrote.
            **arguments: Passed to the constructor when `identifier` is a name or a
                class.

        Raises:
            ValueError: If nothing in the family answers to `identifier`.
        """
        if isinstance(identifier, self.base):
            return identifier
        if isinstance(identifier, str) and spelling(identifier) in self.members:
            return self.members[spelling(identifier)](**arguments)
        if isinstance(identifier, type) and issubclass(identifier, self.base):
            return identifier(**arguments)
        with config_read(self.family, identifier):
            member = revive(identifier)
        if not isinstance(member, self.base):
            member = self.adapt(identifier) if member is identifier else None
        if member is None:
            raise ValueError(self._unknown(identifier))
        return member

    def _unknown(self, identifier: Any) -> str:
        names = [cls.__name__ for cls in self.members.values()]
        written = spelling(identifier) if isinstance(identifier, str) else ""
        near = difflib.get_close_matches(written, self.members, n=1)
        hint = f" Did you mean {self.members[near[0]].__name__!r}?" if near else ""
        return (
            f"{identifier!r} is not {_with_article(self.family)}. Expected the name of "
            f"one of {names}, {_with_article(self.base.__name__)} or its config.{hint}"
        )


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"
