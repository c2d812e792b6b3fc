"""Groups of settings: frozen dataclasses that are checked when they are made, with conversion to and from JSON.

Under ``jit`` a group is an argument like any other: its float fields are traced numbers, all its other fields are
structure. Two groups that differ in numbers alone share one compiled program.

>>> import jax
>>> @settings
... class Example:
...     weight: float = 1.0
...     kind: str = "hinge"
>>> jax.tree.leaves(Example(weight=2.0)), jax.tree.structure(Example(weight=2.0)) == jax.tree.structure(Example())
([2.0], True)
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from thyroid_jax.errors import InputError

T = TypeVar("T")


@typing.dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def settings(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass, registered as a pytree whose leaves are its float fields.

    ``__post_init__`` does not check a group that JAX rebuilds with tracers for numbers.
    """
    from jax.tree_util import GetAttrKey, register_pytree_with_keys  # reading values back needs no JAX

    made = dataclass(frozen=True)(cls)
    hints = typing.get_type_hints(made)
    names = [field.name for field in dataclasses.fields(made)]  # type: ignore[arg-type]
    numbers = [name for name in names if hints[name] is float]
    structure = [name for name in names if hints[name] is not float]

    def flatten(group: Any) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(group, name) for name in numbers], tuple(getattr(group, name) for name in structure)

    def flatten_with_keys(group: Any) -> tuple[list[tuple[GetAttrKey, Any]], tuple[Any, ...]]:
        leaves, rest = flatten(group)
        return [(GetAttrKey(name), leaf) for name, leaf in zip(numbers, leaves)], rest

    def unflatten(rest: tuple[Any, ...], leaves: Any) -> Any:
        group = object.__new__(made)
        for name, value in [*zip(numbers, leaves), *zip(structure, rest)]:
            object.__setattr__(group, name, value)
        return group

    register_pytree_with_keys(made, flatten_with_keys, unflatten, flatten)
    return made


def check_within(
    group: Any, where: str, names: tuple[str, ...], lowest: float | int, highest: float | int = math.inf
) -> None:
    """Raise :class:`InputError` unless every named field is finite and lies between the bounds, both included."""
    for name in names:
        value = getattr(group, name)
        if not (lowest <= value <= highest and math.isfinite(value)):
            bounds = f"at least {lowest:g}" if highest == math.inf else f"between {lowest:g} and {highest:g}"
            raise InputError(f"{where}.{name} is {value}; it must be {bounds}.")


def to_dict(config: Any) -> dict[str, Any]:
    """Settings as plain JSON values."""
    return dataclasses.asdict(config)


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(``group.field``, value) pairs of nested settings."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def from_dict(cls: type[T], values: Any, *, where: str = "config") -> T:
    """Read settings back from :func:`to_dict`'s values.

    Unknown, missing, mistyped or illegal values raise :class:`InputError` that names the field.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected a group of fields, found {values!r}.")
    hints = typing.get_type_hints(cls)
    unknown, missing = sorted(set(values) - set(hints)), sorted(set(hints) - set(values))
    if unknown or missing:
        raise InputError(
            f"{where}: unknown fields {unknown}, missing fields {missing}. The run was made by another version of "
            "thyroid_jax; use that version, or start a new run folder."
        )
    return cls(**{name: _read(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _read(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return from_dict(kind, value, where=where)
    origin = typing.get_origin(kind)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_read(typing.get_args(kind)[0], item, where) for item in value)
    if origin is Literal and value in typing.get_args(kind):
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise InputError(f"{where}: {value!r} is not a value of type {getattr(kind, '__name__', kind)}.")
