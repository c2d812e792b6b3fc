"""TIRADS of Kwak 2011: the number of suspicious features gives the level. There is no size rule.

n = [solid] + [hypoechoic or very hypoechoic] + [lobulated or irregular margin] + [punctate foci] + [taller than wide]

The paper names six features. Hypoechogenicity and marked hypoechogenicity exclude each other, so n is at most 5.

Source: Kwak et al., *Thyroid Imaging Reporting and Data System for US Features of Nodules: A Step in Establishing
Better Stratification of Cancer Risk*, Radiology 260 (2011) 892-899, doi 10.1148/radiol.11110206; 1658 nodules of 10 mm
and more. The risks are the shares of malignant nodules that it observed for 0, 1, 2, 3 to 4 and 5 features.

How the findings are read:
    - Solid component: solid, or mixed and mostly solid. So the paper is read by later comparisons, such as Qi et al.,
      Front Endocrinol 12 (2021) 763897. Of a mixed nodule it must be known which part is larger (``mostly_solid``).
    - Microcalcifications: punctate echogenic foci. An ill-defined margin is not counted.
    - Extrathyroidal extension is no feature. It leaves open whether the margin is irregular.

Not coded: categories 1 (no nodule) and 2 (benign). The number of features does not define them: a cyst or a spongiform
nodule without suspicious features gets 3 here, and is often called 2.

Research use, not advice about a patient.
"""

from __future__ import annotations

from thyroid_jax.tirads.nodule import Asked, Findings
from thyroid_jax.tirads.rules import Graded, LevelRule, System, all_features

LEVEL_OF_COUNT = ("3", "4a", "4b", "4c", "4c", "5")


def _grade(findings: Findings) -> Graded:
    mostly_solid = findings.composition == "mixed" and findings.mostly_solid
    features = all_features(
        {
            "solid component": findings.composition == "solid" or mostly_solid,
            "hypoechogenicity": findings.echogenicity == "hypoechoic",
            "marked hypoechogenicity": findings.echogenicity == "very hypoechoic",
            "microlobulated or irregular margin": findings.margin == "lobulated or irregular",
            "microcalcifications": "punctate" in findings.foci,
            "taller than wide": findings.shape == "taller than wide",
        }
    )
    level = LEVEL_OF_COUNT[len(features)]
    reasons = [f"Suspicious feature: {name}." for name in features]
    reasons.append(f"The number of suspicious features is {len(features)}: {level}.")
    if not features and findings.composition in ("cystic", "spongiform"):
        reasons.append("A benign pattern is often called category 2. The count of features does not define it.")
    return Graded((level,), len(features), tuple(reasons))


KWAK = System(
    name="Kwak TIRADS 2011",
    source="Kwak et al., Radiology 260 (2011) 892-899, doi 10.1148/radiol.11110206",
    levels=(
        LevelRule("3", "probably benign", "no suspicious feature", "1.7 %"),
        LevelRule("4a", "low suspicion", "1 suspicious feature", "3.3 %"),
        LevelRule("4b", "intermediate suspicion", "2 suspicious features", "9.2 %"),
        LevelRule("4c", "moderate concern", "3 or 4 suspicious features", "44.4 to 72.4 %"),
        LevelRule("5", "highly suggestive of malignancy", "5 suspicious features", "87.5 %"),
    ),
    grade=_grade,
    asked=Asked(majority=True),
)
