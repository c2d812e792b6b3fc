"""Intervals, tests, effect sizes and sample sizes to compare models on cases that come in groups.

Images of one patient resemble each other, and so do rows of several seeds. So most functions take groups, which are
resampled, flipped or averaged as a whole. A function that takes no groups assumes independent cases and says so.

==============================================  ========================================================================
how sure is this value?                         :func:`cluster_bootstrap`; cases and seeds: :func:`crossed_bootstrap`;
                                                an area under the ROC curve: :func:`delong`
are the two models different?                   :func:`paired_wilcoxon`, :func:`sign_flip_test`, :func:`swap_test`;
                                                :func:`delong`; independent cases: :func:`mcnemar`
is the new model not worse, or better?          :func:`noninferiority`, :func:`noninferiority_areas`, :func:`decide`;
                                                both at once: :func:`superior_and_noninferior`
how large is the difference?                    :func:`cohens_dz`, :func:`rank_biserial`, :func:`discordant_odds`
cases or seeds: what does it depend on?         :func:`variance_components`
several tests                                   :func:`holm`, :func:`benjamini_hochberg`
how many cases are needed?                      :func:`pilot`, :func:`paired_power`, :func:`groups_for_power`,
                                                :func:`smallest_difference`; areas: :func:`area_power`,
                                                :func:`cases_for_area_power`, :func:`smallest_area_difference`; by
                                                simulation: :func:`simulated_paired_power`, :func:`simulated_power`
==============================================  ========================================================================
"""

from thyroid_jax.evaluate.statistics.areas import DeLong, delong
from thyroid_jax.evaluate.statistics.bootstrap import (
    Interval,
    Replicates,
    bootstrap_p,
    cluster_bootstrap,
    cluster_replicates,
    interval_of,
)
from thyroid_jax.evaluate.statistics.claims import (
    BothClaims,
    NonInferiority,
    decide,
    noninferiority,
    noninferiority_areas,
    superior_and_noninferior,
)
from thyroid_jax.evaluate.statistics.components import Components, variance_components
from thyroid_jax.evaluate.statistics.crossed import crossed_bootstrap
from thyroid_jax.evaluate.statistics.effects import (
    OddsRatio,
    PairedEffect,
    RankBiserial,
    cohens_dz,
    discordant_odds,
    rank_biserial,
)
from thyroid_jax.evaluate.statistics.multiple import benjamini_hochberg, holm
from thyroid_jax.evaluate.statistics.permutation import Permutation, sign_flip_test, swap_test
from thyroid_jax.evaluate.statistics.power import (
    Pilot,
    groups_for_power,
    paired_power,
    pilot,
    smallest_difference,
)
from thyroid_jax.evaluate.statistics.power_areas import (
    area_power,
    cases_for_area_power,
    normal_power,
    pilot_area_variance,
    planned_area_variance,
    smallest_area_difference,
)
from thyroid_jax.evaluate.statistics.power_simulated import SimulatedPower, simulated_paired_power, simulated_power
from thyroid_jax.evaluate.statistics.proportions import McNemar, mcnemar
from thyroid_jax.evaluate.statistics.ranks import Wilcoxon, paired_wilcoxon

__all__ = [
    "BothClaims",
    "Components",
    "DeLong",
    "Interval",
    "McNemar",
    "NonInferiority",
    "OddsRatio",
    "PairedEffect",
    "Permutation",
    "Pilot",
    "RankBiserial",
    "Replicates",
    "SimulatedPower",
    "Wilcoxon",
    "area_power",
    "benjamini_hochberg",
    "bootstrap_p",
    "cases_for_area_power",
    "cluster_bootstrap",
    "cluster_replicates",
    "cohens_dz",
    "crossed_bootstrap",
    "decide",
    "delong",
    "discordant_odds",
    "groups_for_power",
    "holm",
    "interval_of",
    "mcnemar",
    "noninferiority",
    "noninferiority_areas",
    "normal_power",
    "paired_power",
    "paired_wilcoxon",
    "pilot",
    "pilot_area_variance",
    "planned_area_variance",
    "rank_biserial",
    "sign_flip_test",
    "simulated_paired_power",
    "simulated_power",
    "smallest_area_difference",
    "smallest_difference",
    "superior_and_noninferior",
    "swap_test",
    "variance_components",
]
