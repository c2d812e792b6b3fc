"""The reference values of the Image Biomarker Standardisation Initiative (IBSI) for its digital phantom.

Phantom, texture matrices and values: Zwanenburg et al., Image biomarker standardisation initiative, reference manual
(arXiv:1612.07003), CC BY 4.0. Values are those of "2D, averaged": each slice by itself, co-occurrences and runs each
direction by itself, and the mean of all; printed with three digits. The phantom holds grey levels, which go into the
matrices as they are.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax.radiomics import first_order, glcm, gldm, glrlm, glszm, levels, ngtdm, raster, sizes

COUNT = 6
PHANTOM = np.array(  # four slices of five columns and four rows; 0 is outside the region
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ]
)
# Pairs of both orders in the four directions together, and runs {(level, length): number}, as the manual tabulates
# them for each slice.
PAIRS = (
    {(1, 1): 22, (1, 4): 17, (1, 6): 6, (4, 1): 17, (4, 4): 16, (4, 6): 11, (6, 1): 6, (6, 4): 11, (6, 6): 4},
    {(1, 1): 42, (1, 3): 5, (1, 4): 8, (1, 6): 8, (3, 1): 5, (3, 4): 1, (3, 6): 2}
    | {(4, 1): 8, (4, 3): 1, (4, 4): 4, (4, 6): 3, (6, 1): 8, (6, 3): 2, (6, 4): 3},
    {(1, 1): 56, (1, 4): 7, (1, 6): 4, (4, 1): 7, (4, 4): 2, (6, 1): 4},
    {(1, 1): 70, (1, 4): 7, (1, 6): 5, (4, 1): 7, (4, 4): 2, (6, 1): 5},
)
RUNS = (
    {(1, 1): 16, (1, 2): 8, (1, 4): 1, (4, 1): 17, (4, 2): 6, (4, 3): 1, (6, 1): 9, (6, 3): 1},
    {(1, 1): 10, (1, 2): 15, (1, 4): 2, (3, 1): 4, (4, 1): 12, (4, 2): 2, (6, 1): 8},
    {(1, 1): 10, (1, 2): 11, (1, 3): 5, (1, 4): 1, (1, 5): 1, (4, 1): 6, (4, 2): 1, (6, 1): 4},
    {(1, 1): 6, (1, 2): 9, (1, 3): 6, (1, 4): 2, (1, 5): 2, (4, 1): 6, (4, 2): 1, (6, 1): 4},
)
ZONES = (
    {(1, 3): 1, (1, 6): 1, (4, 2): 1, (4, 6): 1, (6, 3): 1},
    {(1, 4): 1, (1, 8): 1, (3, 1): 1, (4, 2): 2, (6, 1): 2},
    {(1, 14): 1, (4, 2): 1, (6, 1): 1},
    {(1, 15): 1, (4, 2): 1, (6, 1): 1},
)
DEPENDENCES = (
    {(1, 2): 3, (1, 3): 1, (1, 4): 3, (1, 5): 2, (4, 2): 2, (4, 3): 4, (4, 4): 2, (6, 2): 2, (6, 3): 1},
    {(1, 3): 2, (1, 4): 6, (1, 6): 4, (3, 1): 1, (4, 2): 4, (6, 1): 2},
    {(1, 3): 1, (1, 4): 5, (1, 5): 3, (1, 6): 3, (1, 7): 2, (4, 2): 2, (6, 1): 1},
    {(1, 3): 1, (1, 4): 3, (1, 5): 3, (1, 6): 4, (1, 7): 1, (1, 8): 3, (4, 2): 2, (6, 1): 1},
)
DIFFERENCES = (  # level: s, number
    {1: (14.575, 9), 4: (5.775, 8), 6: (7.325, 3)},
    {1: (11.928571, 12), 3: (0.375, 1), 4: (4.8, 4), 6: (8.0, 2)},
    {1: (7.985714, 14), 4: (4.65, 2), 6: (5.0, 1)},
    {1: (7.582143, 15), 4: (4.65, 2), 6: (5.0, 1)},
)
REFERENCE = {
    "glcm_MaximumProbability": 0.519,
    "glcm_JointAverage": 2.14,
    "glcm_SumSquares": 2.69,
    "glcm_JointEntropy": 2.05,
    "glcm_DifferenceAverage": 1.42,
    "glcm_DifferenceVariance": 2.9,
    "glcm_DifferenceEntropy": 1.4,
    "glcm_SumAverage": 4.28,
    "glcm_SumEntropy": 1.6,
    "glcm_JointEnergy": 0.368,
    "glcm_Contrast": 5.28,
    "glcm_Id": 0.678,
    "glcm_Idn": 0.851,
    "glcm_Idm": 0.619,
    "glcm_Idmn": 0.899,
    "glcm_InverseVariance": 0.0567,
    "glcm_Correlation": -0.0121,
    "glcm_Autocorrelation": 5.09,
    "glcm_ClusterTendency": 5.47,
    "glcm_ClusterShade": 7.0,
    "glcm_ClusterProminence": 79.1,
    "glcm_Imc1": -0.155,
    "glcm_Imc2": 0.487,
    "glrlm_ShortRunEmphasis": 0.641,
    "glrlm_LongRunEmphasis": 3.78,
    "glrlm_LowGrayLevelRunEmphasis": 0.604,
    "glrlm_HighGrayLevelRunEmphasis": 9.82,
    "glrlm_ShortRunLowGrayLevelEmphasis": 0.294,
    "glrlm_ShortRunHighGrayLevelEmphasis": 8.57,
    "glrlm_LongRunLowGrayLevelEmphasis": 3.14,
    "glrlm_LongRunHighGrayLevelEmphasis": 17.4,
    "glrlm_GrayLevelNonUniformity": 5.2,
    "glrlm_GrayLevelNonUniformityNormalized": 0.46,
    "glrlm_RunLengthNonUniformity": 6.12,
    "glrlm_RunLengthNonUniformityNormalized": 0.492,
    "glrlm_RunPercentage": 0.627,
    "glrlm_GrayLevelVariance": 3.35,
    "glrlm_RunVariance": 0.761,
    "glrlm_RunEntropy": 2.17,
    "glszm_SmallAreaEmphasis": 0.363,
    "glszm_LargeAreaEmphasis": 43.9,
    "glszm_LowGrayLevelZoneEmphasis": 0.371,
    "glszm_HighGrayLevelZoneEmphasis": 16.4,
    "glszm_SmallAreaLowGrayLevelEmphasis": 0.0259,
    "glszm_SmallAreaHighGrayLevelEmphasis": 10.3,
    "glszm_LargeAreaLowGrayLevelEmphasis": 40.4,
    "glszm_LargeAreaHighGrayLevelEmphasis": 113.0,
    "glszm_GrayLevelNonUniformity": 1.41,
    "glszm_GrayLevelNonUniformityNormalized": 0.323,
    "glszm_SizeZoneNonUniformity": 1.49,
    "glszm_SizeZoneNonUniformityNormalized": 0.333,
    "glszm_ZonePercentage": 0.24,
    "glszm_GrayLevelVariance": 3.97,
    "glszm_ZoneVariance": 21.0,
    "glszm_ZoneEntropy": 1.93,
    "gldm_SmallDependenceEmphasis": 0.158,
    "gldm_LargeDependenceEmphasis": 19.2,
    "gldm_LowGrayLevelEmphasis": 0.702,
    "gldm_HighGrayLevelEmphasis": 7.49,
    "gldm_SmallDependenceLowGrayLevelEmphasis": 0.0473,
    "gldm_SmallDependenceHighGrayLevelEmphasis": 3.06,
    "gldm_LargeDependenceLowGrayLevelEmphasis": 17.6,
    "gldm_LargeDependenceHighGrayLevelEmphasis": 49.5,
    "gldm_GrayLevelNonUniformity": 10.2,
    "gldm_DependenceNonUniformity": 3.96,
    "gldm_DependenceNonUniformityNormalized": 0.212,
    "gldm_GrayLevelVariance": 2.7,
    "gldm_DependenceVariance": 2.73,
    "gldm_DependenceEntropy": 2.71,
    "ngtdm_Coarseness": 0.121,
    "ngtdm_Contrast": 0.925,
    "ngtdm_Busyness": 2.99,
    "ngtdm_Complexity": 10.4,
    "ngtdm_Strength": 2.88,
}
# Of all voxels together: where they lie does not matter, so the slices are put side by side.
FIRST_ORDER = {
    "firstorder_Mean": 2.15,
    "firstorder_Variance": 3.05,
    "firstorder_Skewness": 1.08,
    "firstorder_Kurtosis": -0.355 + 3,  # IBSI's is the excess over a normal distribution's 3
    "firstorder_Median": 1.0,
    "firstorder_Minimum": 1.0,
    "firstorder_10Percentile": 1.0,
    "firstorder_90Percentile": 4.0,
    "firstorder_Maximum": 6.0,
    "firstorder_InterquartileRange": 3.0,
    "firstorder_Range": 5.0,
    "firstorder_MeanAbsoluteDeviation": 1.55,
    "firstorder_RobustMeanAbsoluteDeviation": 1.11,
    "firstorder_Energy": 567.0,
    "firstorder_RootMeanSquared": 2.77,
    "firstorder_Entropy": 1.27,
    "firstorder_Uniformity": 0.512,
}
NOT_IN_IBSI = {"glcm_MCC", "firstorder_TotalEnergy"}


@jax.jit
def matrices_and_features(level):
    """What is counted in a slice, and every texture feature; for pairs and runs the mean over the directions."""
    line, row = raster.to_line(level)
    pairs, runs = glcm.pairs(line, row, COUNT), glrlm.runs(line, row, COUNT, max(level.shape))[0]
    zones, dependences = glszm.zones(line, row, COUNT), gldm.dependences(line, row, COUNT)
    differences = ngtdm.differences(line, row, COUNT)
    arguments = {
        glcm: glcm.cooccurrence(pairs, levels.histogram(level, COUNT) > 0),
        glrlm: sizes.table(runs),
        glszm: sizes.table(*zones),
        gldm: sizes.table(dependences),
        ngtdm: differences,
    }
    features = {
        name: feature(argument).mean()
        for kind, argument in arguments.items()
        for name, feature in kind.FEATURES.items()
    }
    return (pairs, runs, zones, dependences, differences), features


@cache
def measured(number):
    return jax.device_get(matrices_and_features(jnp.asarray(PHANTOM[number])))


@cache
def grey_features():
    level = PHANTOM.reshape(16, 5)
    features = jax.jit(
        lambda image, mask: {
            name: feature(first_order.greys(image, mask, image.astype(int), COUNT))
            for name, feature in first_order.FEATURES.items()
        }
    )
    return features(level.astype(np.float32), level > 0)


def counted(numbers, sizes):
    """{(level, size): number} of what was counted in one slice."""
    return {(int(i) + 1, int(sizes[j])): int(numbers[i, j]) for i, j in np.argwhere(np.asarray(numbers))}


def test_the_phantom_has_74_voxels_and_no_levels_2_and_5():
    assert np.bincount(PHANTOM.ravel()).tolist() == [6, 50, 0, 1, 16, 0, 7]


@pytest.mark.parametrize("number", range(4))
def test_matrices_are_those_of_the_manual(number):
    (pairs, runs, zones, dependences, differences), _ = measured(number)
    pairs, from_1 = pairs.sum(0), range(1, 10)
    assert counted(pairs + pairs.T, from_1) == PAIRS[number]
    assert counted(runs.sum(0), from_1) == RUNS[number]
    assert counted(*zones) == ZONES[number]
    assert counted(dependences, from_1) == DEPENDENCES[number]
    for level, (s, voxels) in DIFFERENCES[number].items():
        assert float(differences.s[level - 1]) == pytest.approx(s, rel=1e-6)
        assert float(differences.p[level - 1] * differences.total) == pytest.approx(voxels)


@pytest.mark.parametrize("name", REFERENCE)
def test_texture_is_that_of_the_manual_as_printed(name):
    check_as_printed(np.mean([measured(number)[1][name] for number in range(4)]), REFERENCE[name])


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_grey_values_are_those_of_the_manual_as_printed(name):
    check_as_printed(grey_features()[name], FIRST_ORDER[name])


def check_as_printed(value, printed):
    """Three significant digits: half a unit of the third, and what single precision adds to it."""
    unit = 10.0 ** (np.floor(np.log10(abs(printed))) - 2)
    assert abs(float(value) - printed) <= 0.5 * unit * (1 + 1e-4), f"{float(value):.6g} is not {printed}"


def test_every_feature_has_a_reference_value_or_none_exists():
    ours = {name for kind in (first_order, glcm, glrlm, glszm, gldm, ngtdm) for name in kind.FEATURES}
    assert ours - REFERENCE.keys() - FIRST_ORDER.keys() == NOT_IN_IBSI
