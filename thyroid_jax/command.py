"""The console command: ``thyroid-jax NAME ...`` runs a command of ``data_prep`` or a script of ``experiments``.

``thyroid-jax train ...`` does what ``python -m experiments.train ...`` does in a checkout. A wheel holds the scripts as
``thyroid_jax.experiments``: a top-level package of so common a name would hide other people's. In a checkout they lie
beside this package.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from thyroid_jax.errors import InputError, exits_cleanly

PROGRAM = "thyroid-jax"
DATA = "data_prep"
SCRIPTS = "experiments"


class Command(NamedTuple):
    """A sub-command: the package that has it, :data:`DATA` or :data:`SCRIPTS`, and what it does, in one line."""

    package: str
    line: str


GROUPS: Mapping[str, Mapping[str, Command]] = {
    "data sets": {
        "list": Command(DATA, "print which data sets can be built"),
        "build": Command(DATA, "make a data set from an original download, or of phantoms"),
        "check": Command(DATA, "print what a built data set holds and whether it can be used"),
        "folds": Command(DATA, "divide a built data set into folds and write these to a file"),
        "radiomics": Command(DATA, "write a table of radiomics, one row for each outlined image"),
    },
    "runs": {
        "train": Command(SCRIPTS, "train one model on one data set, or go on after an interruption"),
        "evaluate": Command(SCRIPTS, "measure a run on held-out groups, or results from elsewhere"),
        "compare": Command(SCRIPTS, "train methods on all folds and seeds, and compare them in pairs"),
        "tables": Command(SCRIPTS, "print the tables of a comparison again"),
        "external": Command(SCRIPTS, "test finished runs on other data sets"),
        "probe": Command(SCRIPTS, "draw a run's loss landscapes, and the angles between its tasks"),
    },
    "use": {
        "predict": Command(SCRIPTS, "predict outline, grade and malignancy of your own images"),
        "export": Command(SCRIPTS, "write a run as files that work without this package"),
        "demo": Command(SCRIPTS, "render phantoms, train, evaluate, in a few minutes"),
        "benchmark": Command(SCRIPTS, "time the training step of several variants"),
    },
}
COMMANDS: Mapping[str, Command] = {name: command for group in GROUPS.values() for name, command in group.items()}


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the sub-command named by the first word, with the other words; without a word print all sub-commands.

    An unknown name prints one message, and the exit status is 2.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
    elif words[0] == "--version":
        from thyroid_jax import __version__

        print(f"{PROGRAM} {__version__}")
    else:
        run(words[0], words[1:])


def run(name: str, words: Sequence[str]) -> None:
    """Import the module of the sub-command ``name`` and call its ``main``; :class:`InputError` for an unknown name."""
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f"; did you mean {near[0]}?" if near else "."
        raise InputError(f"{name}: no such command{meant} {PROGRAM} --help lists them.")
    if COMMANDS[name].package == DATA:
        importlib.import_module(f"{DATA}.__main__").main([name, *words])
    else:
        importlib.import_module(f"{scripts_package()}.{name}").main(words)


def overview() -> str:
    """The usage and a line for each sub-command; none of their modules is imported."""
    width = max(map(len, COMMANDS))
    blocks = [
        f"usage: {PROGRAM} COMMAND ...",
        "Outline nodules in ultrasound images and grade them. For research: no advice about a patient.",
        *(
            "\n".join([group, *(f"  {name:<{width}}  {command.line}" for name, command in commands.items())])
            for group, commands in GROUPS.items()
        ),
        f"{PROGRAM} COMMAND --help says more. {PROGRAM} --version prints the version.",
    ]
    return "\n\n".join(blocks)


# --- how the user calls a command, for messages -----------------------------------------------------------------------


def scripts_package() -> str:
    """Name of the package of scripts: inside this one in an installed wheel, beside it in a checkout."""
    inside = Path(__file__).parent / SCRIPTS / "__init__.py"
    return f"thyroid_jax.{SCRIPTS}" if inside.is_file() else SCRIPTS


def program(package: str) -> str:
    """What stands before the name of a command of ``package``, :data:`DATA` or :data:`SCRIPTS`, in the user's words.

    ``thyroid-jax`` where this process was called so, or where a wheel is installed; else ``python -m`` and the package.
    """
    called = Path(sys.argv[0]).stem if sys.argv else ""
    if called == PROGRAM or scripts_package() != SCRIPTS:
        return PROGRAM
    return f"python -m {package}"


def spelled(name: str) -> str:
    """How the user calls a command or script, such as ``python -m experiments.train`` or ``thyroid-jax train``.

    Scripts that are no sub-command are called as modules everywhere.
    """
    if name not in COMMANDS:
        return f"python -m {scripts_package()}.{name}"
    package = COMMANDS[name].package
    before = program(package)
    return f"{before}.{name}" if before == f"python -m {SCRIPTS}" else f"{before} {name}"


if __name__ == "__main__":
    main()
