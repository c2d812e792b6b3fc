"""K-TIRADS of 2021 and of 2016: composition, echogenicity and three suspicious features; then the size.

Sources:
    2021: Ha et al., Korean J Radiol 22 (2021) 2094-2123, doi 10.3348/kjr.2021.0713.
    2016: Shin et al., Korean J Radiol 17 (2016) 370-395, doi 10.3348/kjr.2016.17.3.370.

What differs:
    - Sizes and risks of the levels.
    - A benign pattern with a suspicious feature stays at 2 in 2021; it is 4 in 2016.
    - A spongiform nodule is benign in 2021 if it is isoechoic or hyperechoic, in 2016 with any echogenicity.
    - An entirely calcified nodule is 4 in 2021. The table of 2016 does not name it.

How the findings are read:
    - Suspicious: punctate echogenic foci (2016: microcalcifications); taller than wide (nonparallel orientation);
      lobulated or irregular margin (2016: spiculated or microlobulated).
    - Hypoechoic: hypoechoic or very hypoechoic. Partially cystic: mixed, with any echogenicity.
    - Pure cyst: cystic and anechoic. A cystic nodule with another echogenicity may have a solid part; then it is read
      both as a cyst and as a mixed nodule.
    - Large comet-tail artifacts of a mixed nodule: the benign pattern with intracystic foci.
    - Extrathyroidal extension is not one of the three features. It leaves open whether the margin is irregular.

Not coded: lymph nodes and other signs of a poor prognosis (biopsy at any size), growth, tumours without a nodule. The
sizes of 2021 are those of biopsy: fine-needle aspiration or core needle. The table of 2016 makes no exception for a
pure cyst of 20 mm and more; nor is one made here.

Research use, not advice about a patient.
"""

from __future__ import annotations

from thyroid_jax.tirads.nodule import DARK, Asked, Findings
from thyroid_jax.tirads.rules import Graded, LevelRule, SizeRule, System, all_features, any_size, cyst_or_mixed

_YEARS = "after 1, 3 and 5 years"
_HALF_YEARS = "every 6 months for 1 to 2 years, then every year"


def _grade_2021(findings: Findings) -> Graded:
    if findings.entirely_calcified:
        return Graded(("4",), None, ("Intermediate suspicion: entirely calcified.",))
    both = cyst_or_mixed(_grade_2021, findings)
    if both:
        return both
    pattern = _benign_pattern(findings)
    if pattern == "spongiform" and findings.echogenicity in DARK:
        pattern = None
    if pattern is None:
        return _grade_without_benign_pattern(findings)
    kept = tuple(f"Suspicious feature, without effect on a benign pattern: {name}." for name in _suspicious(findings))
    return Graded(("2",), None, (f"Benign pattern: {pattern}.", *kept))


def _grade_2016(findings: Findings) -> Graded:
    both = cyst_or_mixed(_grade_2016, findings)
    if both:
        return both
    pattern = _benign_pattern(findings)
    if pattern is None:
        return _grade_without_benign_pattern(findings)
    features = tuple(f"Suspicious feature: {name}." for name in _suspicious(findings))
    return Graded(("4",) if features else ("2",), None, (f"Benign pattern: {pattern}.", *features))


def _grade_without_benign_pattern(findings: Findings) -> Graded:
    solid_and_dark = findings.composition == "solid" and findings.echogenicity in DARK
    features = tuple(f"Suspicious feature: {name}." for name in _suspicious(findings)) or ("No suspicious feature.",)
    if solid_and_dark:
        pattern = "Solid and hypoechoic."
    elif findings.composition == "solid":
        pattern = f"Solid and {findings.echogenicity}."
    else:
        pattern = "Partially cystic."
    index = solid_and_dark + bool(_suspicious(findings))
    return Graded((("3", "4", "5")[index],), None, (pattern, *features))


def _benign_pattern(findings: Findings) -> str | None:
    if findings.composition == "cystic":
        return "pure cyst, taken to be without solid part"
    if findings.composition == "spongiform":
        return "spongiform"
    if findings.composition == "mixed" and "large comet-tail" in findings.foci:
        return "partially cystic with comet-tail artifacts"
    return None


def _suspicious(findings: Findings) -> tuple[str, ...]:
    return all_features(
        {
            "punctate echogenic foci": "punctate" in findings.foci,
            "taller than wide": findings.shape == "taller than wide",
            "irregular margin": findings.margin == "lobulated or irregular",
        }
    )


_LOW = "partially cystic, or isoechoic or hyperechoic; no suspicious feature"
_HIGH = "solid and hypoechoic with any of: punctate foci, taller than wide, irregular margin"

K2021 = System(
    name="K-TIRADS 2021",
    source="Ha et al., Korean J Radiol 22 (2021) 2094-2123, doi 10.3348/kjr.2021.0713",
    levels=(
        LevelRule(
            "2",
            "benign",
            "spongiform and isoechoic or hyperechoic; partially cystic with comet-tail artifacts; pure cyst",
            "< 3 %",
            any_size("no FNA"),
        ),
        LevelRule(
            "3",
            "low suspicion",
            _LOW,
            "3 to 10 %",
            (SizeRule(0, False, "follow-up", _YEARS), SizeRule(20, False, "FNA")),
        ),
        LevelRule(
            "4",
            "intermediate suspicion",
            "solid and hypoechoic without, or otherwise as 3 with a suspicious feature; entirely calcified",
            "10 to 40 %",
            (
                SizeRule(0, False, "follow-up", _YEARS),
                SizeRule(10, False, "consider FNA", "the bound is a range; without a risk factor it is 15 mm"),
                SizeRule(15, False, "FNA"),
            ),
        ),
        LevelRule(
            "5",
            "high suspicion",
            _HIGH,
            "> 60 %",
            (SizeRule(0, False, "follow-up", _HALF_YEARS), SizeRule(10, False, "FNA")),
        ),
    ),
    grade=_grade_2021,
    asked=Asked(),
)

K2016 = System(
    name="K-TIRADS 2016",
    source="Shin et al., Korean J Radiol 17 (2016) 370-395, doi 10.3348/kjr.2016.17.3.370",
    levels=(
        LevelRule(
            "2",
            "benign",
            "spongiform; partially cystic with comet-tail artifacts; pure cyst; no suspicious feature",
            "< 3 %",
            (SizeRule(0, False, "no FNA"), SizeRule(20, True, "FNA")),
        ),
        LevelRule(
            "3",
            "low suspicion",
            _LOW,
            "3 to 15 %",
            (SizeRule(0, False, "no FNA"), SizeRule(15, True, "FNA")),
        ),
        LevelRule(
            "4",
            "intermediate suspicion",
            "solid and hypoechoic without, or otherwise as 2 or 3 with a suspicious feature",
            "15 to 50 %",
            (SizeRule(0, False, "no FNA"), SizeRule(10, True, "FNA")),
        ),
        LevelRule(
            "5",
            "high suspicion",
            _HIGH,
            "> 60 %",
            (SizeRule(0, False, "no FNA"), SizeRule(5, False, "consider FNA", "selective"), SizeRule(10, True, "FNA")),
        ),
    ),
    grade=_grade_2016,
    asked=Asked(),
)
