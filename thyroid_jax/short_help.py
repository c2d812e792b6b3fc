"""The short help of scripts whose options are the fields of :class:`~thyroid_jax.config.Config`.

``--help`` shows the options that most runs need, a line each. ``--help-all`` shows every field.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro

from thyroid_jax.config import Config

REQUIRED = tyro.MISSING

COMMON = {
    "data": ("name", "dir", "fold", "split", "reader", "also", "height", "width"),
    "train": ("epochs", "batch_size", "seed", "evaluate_every", "checkpoint_every"),
    "optimizer": ("learning_rate", "weight_decay"),
    "model": ("encoder", "frozen_levels", "pooling", "evidence", "dtype"),
    "rlar": ("weight", "kind", "margin", "level"),
    "guidance": ("weight",),
    "consistency": ("weight",),
    "mtl": ("method",),
    "devices": ("mode",),
}


def short_help(kind: type[Config], default: Any, prog: str, *, about: str) -> str:
    """The usage, what ``about`` says, the script's own options and the :data:`COMMON` ones, with their defaults."""
    shared = {field.name for field in dataclasses.fields(Config)}
    own = [field.name for field in dataclasses.fields(kind) if field.name not in shared]
    blocks = [
        f"usage: {prog} [--config SIZE [METHOD] [OPTION ...]] [--option value ...]",
        textwrap.fill(" ".join(about.split()), 100),
        "\n".join(["options of this script", *(line(kind, name, getattr(default, name), "") for name in own)]),
    ]
    for group, names in COMMON.items():
        settings = getattr(default, group)
        lines = [line(type(settings), name, getattr(settings, name), f"{group}.") for name in names]
        blocks.append("\n".join([group, *lines]))
    blocks.append("--help-all shows every option.")
    return "\n\n".join(blocks)


def line(kind: type, name: str, default: Any, prefix: str) -> str:
    """One option: its name, what it takes, what it means, and its default."""
    option = f"{prefix}{name}".replace("_", "-")
    kinds = get_type_hints(kind)[name]
    usage = f"--{option}, --no-{option}" if kinds is bool else f"--{option} {taken(kinds)}"
    said = " ".join(comments(kind).get(name, "").split())
    return f"  {usage:<38} {said} {shown(default)}"


def taken(annotation: Any) -> str:
    """What an option takes, in the words of a usage line."""
    if get_origin(annotation) is Literal:
        names = list(map(str, get_args(annotation)))
        return "{" + ",".join(names) + "}" if len(names) < 5 else "NAME"
    if get_origin(annotation) is tuple:
        return f"{taken(get_args(annotation)[0])} ..."
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return taken(parts[0]) if parts else getattr(annotation, "__name__", str(annotation)).upper()


def shown(default: Any) -> str:
    """A default in brackets; "(required)" where there is none."""
    if default is REQUIRED:
        return "(required)"
    if isinstance(default, tuple):
        return f"(default: {' '.join(map(str, default)) or 'none'})"
    if isinstance(default, bool):
        return f"(default: {'yes' if default else 'no'})"
    return f"(default: {'none' if default in ('', None) else default})"


@cache
def comments(kind: type) -> dict[str, str]:
    """The text below each field of a dataclass and of the classes that it extends."""
    found: dict[str, str] = {}
    for base in reversed([base for base in kind.__mro__ if dataclasses.is_dataclass(base)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:]):
            if not (isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)):
                continue
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                found[field.target.id] = str(text.value.value)
    return found
