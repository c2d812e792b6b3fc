"""The findings of one nodule, and every way in which findings that were not reported could turn out.

A system of rules needs every finding. What was not reported is not guessed: the rules are applied to each possible
value (:func:`completions`), and the caller sees which levels come out.

The words are those of the ACR lexicon (Grant et al., J Am Coll Radiol 12 (2015) 1272-1279). The other systems have
words of their own. The modules of those systems say how they read these.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from thyroid_jax.tirads.chart import COMPOSITION, ECHOGENICITY, FOCI, MARGIN, SHAPE

SMALLEST_MM, LARGEST_MM = 1.0, 300.0
"""sizes outside are refused: they are most likely not in millimetres"""
SUSPICIOUS_FOCI = ("macrocalcification", "peripheral", "punctate")
ROUGH_MARGINS = ("lobulated or irregular", "extrathyroidal extension")
DARK = ("hypoechoic", "very hypoechoic")

_KINDS = tuple(kind for kind in FOCI if kind != "none")
_COMPOSITIONS = ("cystic", "spongiform", "mixed", "solid")
_OF_SOLID_PARTS = ("hyperechoic", "isoechoic", "hypoechoic", "very hypoechoic")
_MARGINS = ("smooth", "ill-defined", "lobulated or irregular")


@dataclass(frozen=True)
class Nodule:
    """Ultrasound findings of one nodule, in the names of the ACR chart. None means: not reported.

    Args:
        composition: a name of :data:`~thyroid_jax.tirads.COMPOSITION`. "unclear" was looked for and cannot be told.
        echogenicity: a name of :data:`~thyroid_jax.tirads.ECHOGENICITY`, of the solid part where there is one.
        shape: a name of :data:`~thyroid_jax.tirads.SHAPE`.
        margin: a name of :data:`~thyroid_jax.tirads.MARGIN`.
        foci: every kind of :data:`~thyroid_jax.tirads.FOCI` that is present; () or ("none",) where there is none.
        size_mm: largest diameter in millimetres, 1 to 300. A size in pixels is no size.
        mostly_solid: of a mixed nodule, whether more than half is solid. Only Kwak 2011 asks for it.
        entirely_calcified: calcification hides the whole inside. Only K-TIRADS 2021 has a rule for it.

    Raises ValueError for an unknown name (the text lists the known ones), for "none" or None beside a kind of focus,
    for a size outside the range or NaN, for ``mostly_solid`` of a nodule that is not mixed, and for an entirely
    calcified nodule whose composition or echogenicity is known. So does a text in the place of a truth value.
    """

    composition: str | None = None
    echogenicity: str | None = None
    shape: str | None = None
    margin: str | None = None
    foci: Collection[str] | None = None
    size_mm: float | int | None = None
    mostly_solid: bool | None = None
    entirely_calcified: bool = False

    def __post_init__(self) -> None:
        _check_name("composition", self.composition, COMPOSITION)
        _check_name("echogenicity", self.echogenicity, ECHOGENICITY)
        _check_name("shape", self.shape, SHAPE)
        _check_name("margin", self.margin, MARGIN)
        object.__setattr__(self, "foci", _checked_foci(self.foci))
        _check_size(self.size_mm)
        _check_truth("mostly_solid", self.mostly_solid, (True, False, None))
        _check_truth("entirely_calcified", self.entirely_calcified, (True, False))
        if self.mostly_solid is not None and self.composition != "mixed":
            raise ValueError("mostly_solid: only of a mixed nodule. Set composition='mixed' or leave it out.")
        if self.entirely_calcified and {self.composition, self.echogenicity} - {None, "unclear"}:
            raise ValueError(
                "entirely_calcified: the inside is not seen. Both composition and echogenicity are 'unclear' then."
            )


class Findings(NamedTuple):
    """Findings that leave nothing open: what the rules of a system are applied to."""

    composition: str
    echogenicity: str
    shape: str
    margin: str
    foci: frozenset[str]
    mostly_solid: bool
    entirely_calcified: bool


class Asked(NamedTuple):
    """What a system has rules for: it decides which findings are open for that system.

    Args:
        unclear: whether "unclear" has a rule of its own. If not, it is as good as not reported.
        extension: whether extrathyroidal extension is named. If not, it leaves open whether the margin is irregular.
        majority: whether the larger part of a mixed nodule counts.
    """

    unclear: bool = False
    extension: bool = False
    majority: bool = False


def completions(nodule: Nodule, asked: Asked) -> tuple[Findings, ...]:
    """Every complete set of findings that agrees with what was reported; at least one.

    Anechoic is a finding of cystic nodules only (a note of the ACR chart). Reported of a nodule with another
    composition it is a contradiction, and the echogenicity is open.
    """
    return tuple(
        Findings(composition, echogenicity, shape, margin, foci, mostly_solid, nodule.entirely_calcified)
        for composition in _compositions(nodule, asked)
        for echogenicity in _echogenicities(nodule, asked, composition)
        for shape in ((nodule.shape,) if nodule.shape else SHAPE)
        for margin in _margins(nodule, asked)
        for foci in _sets_of_foci(nodule)
        for mostly_solid in _majorities(nodule, asked, composition)
    )


def missing_findings(nodule: Nodule, asked: Asked) -> tuple[str, ...]:
    """Names of the fields of ``nodule`` that the system asks for and that are open for it."""
    is_open = {
        "composition": not _is_known(nodule.composition, asked),
        "echogenicity": not _is_known(nodule.echogenicity, asked) or _is_contradiction(nodule),
        "shape": nodule.shape is None,
        "margin": len(_margins(nodule, asked)) > 1,
        "foci": nodule.foci is None,
        "mostly_solid": asked.majority and nodule.composition == "mixed" and nodule.mostly_solid is None,
    }
    return tuple(name for name, value in is_open.items() if value)


def doubts(nodule: Nodule) -> tuple[str, ...]:
    """Sentences about findings that hardly go together. The reader should look again; no rule is changed by them."""
    foci = nodule.foci or ()
    suspicious = [kind for kind in SUSPICIOUS_FOCI if kind in foci]
    suspicious += [nodule.margin] if nodule.margin in ROUGH_MARGINS else []
    suspicious += ["taller than wide"] if nodule.shape == "taller than wide" else []
    sentences = []
    if _is_contradiction(nodule):
        sentences.append(
            f"Contradiction: anechoic is said of cystic nodules only, and the composition is {nodule.composition}. "
            "The echogenicity of the solid part is treated as not reported."
        )
    if nodule.composition == "cystic" and nodule.echogenicity in _OF_SOLID_PARTS:
        sentences.append(
            f"Check the composition: a cystic nodule has no solid part that could be {nodule.echogenicity}."
        )
    if nodule.composition in ("cystic", "spongiform") and suspicious:
        sentences.append(f"Check the composition: {nodule.composition} hardly goes with {', '.join(suspicious)}.")
    if nodule.composition == "solid" and "large comet-tail" in foci:
        sentences.append("Check the foci: large comet-tail artifacts lie in cystic parts, and the nodule is solid.")
    return tuple(sentences)


def _check_name(field: str, name: str | None, known: Collection[str]) -> None:
    if name is not None and name not in known:
        raise ValueError(f"{field}: unknown name {name!r}. Known names: {', '.join(known)}; None means not reported.")


def _checked_foci(foci: Collection[str] | None) -> tuple[str, ...] | None:
    """The kinds that are present, once each, in the order of the chart; () where there is none."""
    if foci is None:
        return None
    if isinstance(foci, str):
        raise ValueError(f"foci: {foci!r} is one word. Give a tuple of names, such as ({foci!r},).")
    foci = tuple(foci)  # an iterator could be read once only
    for kind in foci:
        if kind is None:
            raise ValueError("foci: None beside names. Leave it out, or give None in place of all: not reported.")
        _check_name("foci", kind, FOCI)
    if "none" in foci and set(foci) != {"none"}:
        raise ValueError(f"foci: 'none' beside {', '.join(sorted(set(foci) - {'none'}))}. Leave one of them out.")
    return tuple(kind for kind in _KINDS if kind in foci)


def _check_size(size_mm: float | int | None) -> None:
    if size_mm is not None and not (math.isfinite(size_mm) and SMALLEST_MM <= size_mm <= LARGEST_MM):
        raise ValueError(
            f"size_mm: {size_mm} is not a diameter in millimetres from {SMALLEST_MM:g} to {LARGEST_MM:g}. "
            "None means not known."
        )


def _check_truth(field: str, value: bool | None, known: Collection[bool | None]) -> None:
    if value not in known:
        raise ValueError(f"{field}: {value!r} is not one of {', '.join(map(str, known))}.")


def _is_known(name: str | None, asked: Asked) -> bool:
    return name is not None and (asked.unclear or name != "unclear")


def _is_contradiction(nodule: Nodule) -> bool:
    return nodule.echogenicity == "anechoic" and nodule.composition in ("spongiform", "mixed", "solid")


def _compositions(nodule: Nodule, asked: Asked) -> tuple[str, ...]:
    if _is_known(nodule.composition, asked):
        return (str(nodule.composition),)
    return ("cystic",) if nodule.echogenicity == "anechoic" else _COMPOSITIONS


def _echogenicities(nodule: Nodule, asked: Asked, composition: str) -> tuple[str, ...]:
    if _is_known(nodule.echogenicity, asked) and not _is_contradiction(nodule):
        return (str(nodule.echogenicity),)
    return ("anechoic", *_OF_SOLID_PARTS) if composition == "cystic" else _OF_SOLID_PARTS


def _margins(nodule: Nodule, asked: Asked) -> tuple[str, ...]:
    if nodule.margin == "extrathyroidal extension" and not asked.extension:
        return ("smooth", "lobulated or irregular")
    if _is_known(nodule.margin, asked):
        return (str(nodule.margin),)
    return (*_MARGINS, "extrathyroidal extension") if asked.extension else _MARGINS


def _sets_of_foci(nodule: Nodule) -> Iterator[frozenset[str]]:
    if nodule.foci is not None:
        yield frozenset(nodule.foci)
        return
    for count in range(len(_KINDS) + 1):
        yield from map(frozenset, itertools.combinations(_KINDS, count))


def _majorities(nodule: Nodule, asked: Asked, composition: str) -> tuple[bool, ...]:
    if not asked.majority or composition != "mixed":
        return (False,)
    return (False, True) if nodule.mostly_solid is None else (nodule.mostly_solid,)
