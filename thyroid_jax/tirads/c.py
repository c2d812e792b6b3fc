"""C-TIRADS 2020 (China): suspicious features are counted, a benign one is taken off; then the size.

score = [solid] + [very hypoechoic] + [taller than wide] + [margin not smooth] + foci, from -1 to 5

foci is the largest over the kinds that are present: punctate 1, macrocalcification and peripheral 0, comet-tail
artifacts -1; 0 where there is none. "Margin not smooth": ill-defined, irregular or extrathyroidal extension.

Sources:
    Score, levels, risks: Zhou et al., *2020 Chinese guidelines for ultrasound malignancy risk stratification of thyroid
    nodules: the C-TIRADS*, Endocrine 70 (2020) 256-279, doi 10.1007/s12020-020-02441-y.
    Sizes: *Guidelines for the diagnosis and management of thyroid nodules and differentiated thyroid cancer*, second
    edition, Chin J Endocrinol Metab 39 (2023) 181-226; taken from summaries, the full text was not at hand.

How the findings are read:
    - Microcalcifications: punctate echogenic foci. Comet-tail artifacts: large comet-tail.
    - Mixed, cystic and spongiform nodules are not solid. The score alone is applied to them: a cyst without comet-tail
      artifacts has 0 and so the level 3.

Not coded: level 1 (no nodule) and 6 (proven malignant); FNA of smaller nodules near the capsule, the trachea or the
nerve, with suspicious lymph nodes or other clinical risk; follow-up.

Research use, not advice about a patient.
"""

from __future__ import annotations

from thyroid_jax.tirads.nodule import Asked, Findings
from thyroid_jax.tirads.rules import Graded, LevelRule, SizeRule, System, all_features, any_size

FEATURES = (
    "solid",
    "markedly hypoechoic",
    "taller than wide",
    "margin ill-defined, irregular, or with extrathyroidal extension",
    "microcalcifications",
)
LEVEL_OF_SCORE = {-1: "2", 0: "3", 1: "4A", 2: "4B", 3: "4C", 4: "4C", 5: "5"}
SCORE_OF_FOCI = {"large comet-tail": -1, "macrocalcification": 0, "peripheral": 0, "punctate": 1}
FNA_FROM_10 = (SizeRule(0, False, "no FNA"), SizeRule(10, True, "FNA"))


def _grade(findings: Findings) -> Graded:
    foci = max((SCORE_OF_FOCI[kind] for kind in findings.foci), default=0)
    present = (
        findings.composition == "solid",
        findings.echogenicity == "very hypoechoic",
        findings.shape == "taller than wide",
        findings.margin != "smooth",
        foci == 1,
    )
    features = all_features(dict(zip(FEATURES, present)))
    score = len(features) + min(foci, 0)
    reasons = [f"Feature that adds 1: {name}." for name in features]
    if foci == -1:
        reasons.append("Feature that takes off 1: comet-tail artifacts.")
    elif "large comet-tail" in findings.foci:
        reasons.append("Comet-tail artifacts take nothing off: only the highest score of the foci counts.")
    reasons.append(f"The score is {score}: {LEVEL_OF_SCORE[score]}.")
    return Graded((LEVEL_OF_SCORE[score],), score, tuple(reasons))


C = System(
    name="C-TIRADS 2020",
    source=(
        "Zhou et al., Endocrine 70 (2020) 256-279, doi 10.1007/s12020-020-02441-y; "
        "sizes: Chin J Endocrinol Metab 39 (2023) 181-226"
    ),
    levels=(
        LevelRule("2", "benign", "score -1", "0 %", any_size("no FNA")),
        LevelRule("3", "probably benign", "score 0", "< 2 %", any_size("no FNA")),
        LevelRule(
            "4A",
            "low suspicion",
            "score 1",
            "2 to 10 %",
            (SizeRule(0, False, "no FNA"), SizeRule(15, True, "FNA")),
        ),
        LevelRule("4B", "moderate suspicion", "score 2", "10 to 50 %", FNA_FROM_10),
        LevelRule("4C", "high suspicion", "score 3 or 4", "50 to 90 %", FNA_FROM_10),
        LevelRule("5", "highly suggestive of malignancy", "score 5", "> 90 %", FNA_FROM_10),
    ),
    grade=_grade,
    asked=Asked(extension=True),
)
