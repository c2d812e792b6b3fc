"""EU-TIRADS 2017: a pattern decides the level, then the size decides about FNA.

Source: Russ et al., *European Thyroid Association Guidelines for Ultrasound Malignancy Risk Stratification of Thyroid
Nodules in Adults: The EU-TIRADS*, Eur Thyroid J 6 (2017) 225-237, doi 10.1159/000478927.

How the findings are read:
    - Non-oval shape: taller than wide. Another irregular shape has no word here.
    - Microcalcifications: punctate echogenic foci. Macrocalcifications and rims do not change the level.
    - Marked hypoechogenicity: very hypoechoic. It counts as a high-risk feature of solid nodules only; a mixed nodule
      with hypoechoic or very hypoechoic tissue is of intermediate risk.
    - Pure cyst: cystic and anechoic. A cystic nodule with another echogenicity may have a solid part; then it is read
      both as a cyst and as a mixed nodule.
    - Extrathyroidal extension is not named in the table. It leaves open whether the margin is irregular.
    - Where a cyst or a spongiform nodule has a high-risk feature, levels 2 and 5 are both possible: the table does not
      say which goes first.

Not coded: lymph nodes, clinical risk, scintigraphy. The guideline gives no interval of follow-up by level.

Research use, not advice about a patient.
"""

from __future__ import annotations

from thyroid_jax.tirads.nodule import DARK, Asked, Findings
from thyroid_jax.tirads.rules import Graded, LevelRule, SizeRule, System, all_features, any_size, cyst_or_mixed

_SURVEILLANCE = "active surveillance if no lymph node is abnormal, or FNA as the patient prefers; no interval given"


def _grade(findings: Findings) -> Graded:
    both = cyst_or_mixed(_grade, findings)
    if both:
        return both
    features = _high_risk_features(findings)
    if findings.composition in ("cystic", "spongiform"):
        return _benign(findings, features)
    if features:
        return Graded(("5",), None, tuple(f"High-risk feature: {feature}." for feature in features))
    none = "No high-risk feature."
    if findings.echogenicity in DARK:
        return Graded(("4",), None, (none, f"Intermediate risk: {findings.echogenicity} and {findings.composition}."))
    return Graded(("3",), None, (none, f"Low risk: {findings.echogenicity}."))


def _benign(findings: Findings, features: tuple[str, ...]) -> Graded:
    if findings.composition == "cystic":
        pattern = ("Benign pattern: anechoic cyst, taken to be without solid part.",)
    else:
        pattern = ("Benign pattern: spongiform, taken to be so throughout; otherwise the nodule is of low risk (3).",)
    if not features:
        return Graded(("2",), None, pattern)
    conflict = (
        f"The table does not say whether the pattern or the high-risk feature ({', '.join(features)}) goes first."
    )
    return Graded(("2", "5"), None, (*pattern, conflict))


def _high_risk_features(findings: Findings) -> tuple[str, ...]:
    return all_features(
        {
            "taller than wide": findings.shape == "taller than wide",
            "irregular margin": findings.margin == "lobulated or irregular",
            "microcalcifications": "punctate" in findings.foci,
            "marked hypoechogenicity": findings.echogenicity == "very hypoechoic" and findings.composition == "solid",
        }
    )


EU = System(
    name="EU-TIRADS 2017",
    source="Russ et al., Eur Thyroid J 6 (2017) 225-237, doi 10.1159/000478927",
    levels=(
        LevelRule("2", "benign", "pure or anechoic cyst; entirely spongiform", "close to 0 %", any_size("no FNA")),
        LevelRule(
            "3",
            "low risk",
            "isoechoic or hyperechoic, no high-risk feature",
            "2 to 4 %",
            (SizeRule(0, False, "no FNA"), SizeRule(20, False, "FNA")),
        ),
        LevelRule(
            "4",
            "intermediate risk",
            "mildly hypoechoic, no high-risk feature",
            "6 to 17 %",
            (SizeRule(0, False, "no FNA"), SizeRule(15, False, "FNA")),
        ),
        LevelRule(
            "5",
            "high risk",
            "any of: taller than wide, irregular margin, microcalcifications, solid and markedly hypoechoic",
            "26 to 87 %",
            (SizeRule(0, False, "follow-up", _SURVEILLANCE), SizeRule(10, False, "FNA")),
        ),
    ),
    grade=_grade,
    asked=Asked(),
)
