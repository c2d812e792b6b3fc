"""Thirty-two nodules made from the published rules, each with the result of every system written by hand.

Two of them are published cases, with the levels that the paper gives: Na et al., Ultrasonography, doi
10.14366/usg.20148, figure 4 (A: solid and isoechoic, 14 mm; B: partially cystic and mildly hypoechoic, 12 mm).
"""

import pytest

from thyroid_jax import tirads
from thyroid_jax.tirads import Nodule

WIDE, TALL = "wider than tall", "taller than wide"
SMOOTH, ILL, IRREGULAR, EXTENSION = "smooth", "ill-defined", "lobulated or irregular", "extrathyroidal extension"
ISO, HYPER, HYPO, VERY = "isoechoic", "hyperechoic", "hypoechoic", "very hypoechoic"
COMET, MACRO, RIM, DOTS = "large comet-tail", "macrocalcification", "peripheral", "punctate"
SMALL, LARGE = {"mostly_solid": False}, {"mostly_solid": True}

# findings and size in mm -> "acr | eu | k | k2016 | c | kwak", each as "level points: management"; "-" is None.
WORKED = [
    (
        ("cystic", "anechoic", WIDE, SMOOTH, (), 40),
        {},
        "TR1 0: none | 2: no FNA | 2: no FNA | 2: FNA | 3 0: no FNA | 3 0",
    ),
    (
        ("cystic", "anechoic", WIDE, SMOOTH, (COMET,), 12),
        {},
        "TR1 0: none | 2: no FNA | 2: no FNA | 2: no FNA | 2 -1: no FNA | 3 0",
    ),
    (("spongiform", ISO, WIDE, SMOOTH, (), 30), {}, "TR1 0: none | 2: no FNA | 2: no FNA | 2: FNA | 3 0: no FNA | 3 0"),
    (("mixed", ISO, WIDE, SMOOTH, (), 24.9), SMALL, "TR2 2: none | 3: FNA | 3: FNA | 3: FNA | 3 0: no FNA | 3 0"),
    (
        ("mixed", ISO, WIDE, SMOOTH, (COMET,), 22),
        LARGE,
        "TR2 2: none | 3: FNA | 2: no FNA | 2: FNA | 2 -1: no FNA | 4a 1",
    ),
    (("solid", ISO, WIDE, SMOOTH, (), 25), {}, "TR3 3: FNA | 3: FNA | 3: FNA | 3: FNA | 4A 1: FNA | 4a 1"),
    (
        ("solid", ISO, WIDE, SMOOTH, (), 15),
        {},
        "TR3 3: follow-up | 3: no FNA | 3: follow-up | 3: FNA | 4A 1: FNA | 4a 1",
    ),
    (
        ("solid", HYPER, WIDE, ILL, (), 18),
        {},
        "TR3 3: follow-up | 3: no FNA | 3: follow-up | 3: FNA | 4B 2: FNA | 4a 1",
    ),
    (("solid", HYPO, WIDE, SMOOTH, (), 15), {}, "TR4 4: FNA | 4: no FNA | 4: consider FNA | 4: FNA | 4A 1: FNA | 4b 2"),
    (
        ("solid", HYPO, WIDE, SMOOTH, (), 9.9),
        {},
        "TR4 4: none | 4: no FNA | 4: follow-up | 4: no FNA | 4A 1: no FNA | 4b 2",
    ),
    (("solid", HYPO, TALL, SMOOTH, (), 10), {}, "TR5 7: FNA | 5: follow-up | 5: follow-up | 5: FNA | 4B 2: FNA | 4c 3"),
    (("solid", HYPO, WIDE, IRREGULAR, (), 10.1), {}, "TR4 6: follow-up | 5: FNA | 5: FNA | 5: FNA | 4B 2: FNA | 4c 3"),
    (
        ("solid", HYPO, WIDE, SMOOTH, (DOTS,), 8),
        {},
        "TR5 7: follow-up | 5: follow-up | 5: follow-up | 5: consider FNA | 4B 2: no FNA | 4c 3",
    ),
    (
        ("solid", VERY, WIDE, SMOOTH, (), 11),
        {},
        "TR4 5: follow-up | 5: FNA | 4: consider FNA | 4: FNA | 4B 2: FNA | 4b 2",
    ),
    (
        ("solid", VERY, TALL, IRREGULAR, (DOTS,), 6),
        {},
        "TR5 13: follow-up | 5: follow-up | 5: follow-up | 5: consider FNA | 5 5: no FNA | 5 5",
    ),
    (
        ("solid", VERY, TALL, IRREGULAR, (DOTS,), 4.9),
        {},
        "TR5 13: none | 5: follow-up | 5: follow-up | 5: no FNA | 5 5: no FNA | 5 5",
    ),
    (
        ("mixed", HYPO, WIDE, SMOOTH, (), 18),
        LARGE,
        "TR3 3: follow-up | 4: FNA | 3: follow-up | 3: FNA | 3 0: no FNA | 4b 2",
    ),
    (
        ("mixed", HYPO, WIDE, SMOOTH, (DOTS,), 12),  # figure 4 B
        SMALL,
        "TR4 6: follow-up | 5: FNA | 4: consider FNA | 4: FNA | 4A 1: no FNA | 4b 2",
    ),
    (
        ("solid", ISO, WIDE, SMOOTH, (DOTS,), 14),  # figure 4 A
        {},
        "TR4 6: follow-up | 5: FNA | 4: consider FNA | 4: FNA | 4B 2: FNA | 4b 2",
    ),
    (("solid", ISO, TALL, SMOOTH, (), 20), {}, "TR4 6: FNA | 5: FNA | 4: FNA | 4: FNA | 4B 2: FNA | 4b 2"),
    (
        ("solid", ISO, WIDE, SMOOTH, (MACRO,), 12),
        {},
        "TR4 4: follow-up | 3: no FNA | 3: follow-up | 3: no FNA | 4A 1: no FNA | 4a 1",
    ),
    (("solid", ISO, WIDE, SMOOTH, (RIM,), 15), {}, "TR4 5: FNA | 3: no FNA | 3: follow-up | 3: FNA | 4A 1: FNA | 4a 1"),
    (
        ("solid", HYPO, WIDE, SMOOTH, (MACRO, RIM), 10),
        {},
        "TR5 7: FNA | 4: no FNA | 4: follow-up | 4: FNA | 4A 1: no FNA | 4b 2",
    ),
    (("solid", HYPO, WIDE, ILL, (MACRO, DOTS), 30), {}, "TR5 8: FNA | 5: FNA | 5: FNA | 5: FNA | 4C 3: FNA | 4c 3"),
    (
        ("mixed", ISO, WIDE, SMOOTH, (RIM,), 16),
        SMALL,
        "TR4 4: FNA | 3: no FNA | 3: follow-up | 3: FNA | 3 0: no FNA | 3 0",
    ),
    (("mixed", VERY, WIDE, SMOOTH, (), 15.5), SMALL, "TR4 4: FNA | 4: FNA | 3: follow-up | 3: FNA | 4A 1: FNA | 4a 1"),
    (("mixed", ISO, TALL, ILL, (COMET,), 21), LARGE, "TR4 5: FNA | 5: FNA | 2: no FNA | 4: FNA | 4A 1: FNA | 4b 2"),
    (("solid", VERY, TALL, EXTENSION, (MACRO,), 11), {}, "TR5 12: FNA | 5: FNA | 5: FNA | 5: FNA | 4C 4: FNA | 4c -"),
    (("spongiform", ISO, TALL, SMOOTH, (DOTS,), 28), {}, "TR1 0: none | 2 5 | 2: no FNA | 4: FNA | 4B 2: FNA | 4b 2"),
    (
        ("unclear", "unclear", WIDE, "unclear", (MACRO,), 16),
        {"entirely_calcified": True},
        "TR4 4: FNA | 2 3 4 5 | 4: FNA | 2 3 4 5 | 3 4A 4B 4C - | 3 4a 4b 4c -",
    ),
    (
        ("solid", HYPER, WIDE, SMOOTH, (COMET,), 10),
        {},
        "TR3 3: none | 3: no FNA | 3: follow-up | 3: no FNA | 3 0: no FNA | 4a 1",
    ),
    (("cystic", "anechoic", WIDE, SMOOTH, (DOTS,), 25), {}, "TR3 3: FNA | 2 5 | 2: no FNA | 4: FNA | 4A 1: FNA | 4a 1"),
]


def as_written(assessment, counts):
    """An assessment in the form of the table above."""
    points = (" -" if assessment.points is None else f" {assessment.points}") if counts else ""
    management = f": {assessment.management}" if assessment.management else ""
    return " ".join(assessment.possible) + points + management


@pytest.mark.parametrize(("findings", "more", "expected"), WORKED, ids=lambda value: "")
def test_every_system_gives_what_was_worked_out_by_hand(findings, more, expected):
    results = tirads.compare(Nodule(*findings, **more))
    assert list(results) == ["acr", "eu", "k", "k2016", "c", "kwak"]
    got = [as_written(result, counts=name in ("acr", "c", "kwak")) for name, result in results.items()]
    assert " | ".join(got) == expected


def test_the_two_published_cases_are_among_them():
    """Na et al. 2021, figure 4: both nodules are TR4, EU-TIRADS 5 and K-TIRADS 4."""
    for nodule in (
        Nodule("solid", ISO, WIDE, SMOOTH, (DOTS,), 14),
        Nodule("mixed", HYPO, WIDE, SMOOTH, (DOTS,), 12),
    ):
        assert [tirads.assess(nodule, name).level for name in ("acr", "eu", "k")] == ["TR4", "5", "4"]


def test_the_nodules_cover_every_level_of_every_system():
    seen = {name: set() for name in tirads.SYSTEMS}
    for findings, more, _ in WORKED:
        for name, result in tirads.compare(Nodule(*findings, **more)).items():
            seen[name].add(result.level)
    for name, system in tirads.SYSTEMS.items():
        assert {level.name for level in system.levels} <= seen[name], name
