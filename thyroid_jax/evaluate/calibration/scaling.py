"""Scaling of probabilities by one or two fitted numbers, so that they come near the frequencies of the outcomes.

=============  =============================================================  ==========================================
"temperature"  grades: softmax(log p / T)                                     keeps the order of the grades of a case,
               malignancy: sigmoid(logit(p) / T)                              and on which side of 1/2 p lies
"ordinal"      grades: logit P'(grade > j) = logit(P(grade > j)) / T + bias   can change the predicted grade
"platt"        malignancy: logit p' = logit(p) / T + bias                     keeps the order of the cases (the AUROC),
                                                                              can change the side of 1/2
=============  =============================================================  ==========================================

T > 1 makes probabilities less extreme, T < 1 more. A positive bias raises the risk. The ordinal form shifts and scales
the logits of all cumulative probabilities alike, so that they stay in order and every probability stays at or above 0;
with two grades it is Platt's.

All are fitted by maximum likelihood. With s = 1 / T the negative log-likelihood is convex in s, and in (s, bias): it is
a logarithm of a sum of exponentials of linear functions, or -log(sigmoid(u) - sigmoid(v)) with linear u > v, which is
convex. Fit on cases that the model was not trained on; the likelihood on the same cases afterwards is too good.

Sources: Guo et al., ICML 2017 (temperature); Platt, *Advances in Large Margin Classifiers*, 1999 (his smoothed targets
are not used); cumulative links: McCullagh, JRSS B 42 (1980) 109-142; convexity: Pratt, JASA 76 (1981) 103-106.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from thyroid_jax.evaluate.calibration.binning import checked_forecast, checked_grades

GRADE_METHODS = ("temperature", "ordinal")
MALIGNANCY_METHODS = ("temperature", "platt")
GRADE_FLOOR, MALIGNANCY_FLOOR = 1e-12, 1e-7
"""A probability below its floor is raised to it before a logarithm, in fitting and in scaling. A probability
of malignancy also stays that far below 1: float32 cannot tell apart what is nearer. Cases beyond a floor become equal.
"""
TEMPERATURES = (0.05, 20.0)
BIASES = (-50.0, 50.0)
LEAST_CASES = 30


@dataclass(frozen=True)
class Scaling:
    """One fitted scaling, and from what it was fitted.

    ``method`` as in the module's table, ``temperature`` T, ``bias`` (0 for "temperature"); fitted from ``cases`` of
    ``groups``, whose mean negative log-likelihood (nats) was ``nll_before`` and is ``nll_after``, both of probabilities
    raised to the floor. ``remark`` says what is unusual about the fit, or is "".

    Raises ValueError for an unknown method, or numbers that no fit gives.
    """

    method: str
    temperature: float
    bias: float
    cases: int
    groups: int
    nll_before: float
    nll_after: float
    remark: str = ""

    def __post_init__(self):
        if self.method not in (*GRADE_METHODS, *MALIGNANCY_METHODS):
            raise ValueError(f"method {self.method!r} is unknown.")
        if not TEMPERATURES[0] <= self.temperature <= TEMPERATURES[1]:
            raise ValueError(f"temperature {self.temperature} is not in {list(TEMPERATURES)}.")
        if not BIASES[0] <= self.bias <= BIASES[1] or (self.method == "temperature" and self.bias != 0):
            raise ValueError(f"bias {self.bias} does not fit the method {self.method!r}.")
        if not 1 <= self.groups <= self.cases:
            raise ValueError(f"{self.cases} cases of {self.groups} groups cannot be.")
        if not (np.isfinite([self.nll_before, self.nll_after]).all() and min(self.nll_before, self.nll_after) >= 0):
            raise ValueError(f"nll_before {self.nll_before} and nll_after {self.nll_after} must be finite, 0 or more.")


def scale_grades(scaling: Scaling, probability: np.ndarray) -> np.ndarray:
    """Scaled probabilities f[... k] of probabilities f[... k] of grades in ascending order of risk; rows sum to 1.

    Raises ValueError for a method that is not one of grades, fewer than two grades, a NaN, or a row that does not sum
    to 1.
    """
    if scaling.method not in GRADE_METHODS:
        raise ValueError(f"grades are scaled by {' or '.join(GRADE_METHODS)}, not by {scaling.method!r}.")
    probability = np.asarray(probability, float)
    rows = probability.reshape(-1, probability.shape[-1])
    checked_grades(rows, np.zeros(len(rows), int), None)
    scale = tempered if scaling.method == "temperature" else shifted
    return scale(floored(rows, GRADE_FLOOR), scaling.temperature, scaling.bias).reshape(probability.shape)


def scale_malignancy(scaling: Scaling, forecast: np.ndarray) -> np.ndarray:
    """Scaled probabilities f[...] of probabilities f[...] of a yes/no event.

    Raises ValueError for a method that is not one of malignancy, a NaN, or a probability outside [0, 1].
    """
    if scaling.method not in MALIGNANCY_METHODS:
        raise ValueError(f"malignancy is scaled by {' or '.join(MALIGNANCY_METHODS)}, not by {scaling.method!r}.")
    forecast = np.asarray(forecast, float)
    flat, _, _ = checked_forecast(forecast.reshape(-1), np.zeros(forecast.size, int), None)
    return shifted(floored(two_columns(flat), MALIGNANCY_FLOOR), scaling.temperature, scaling.bias)[:, 1].reshape(
        forecast.shape
    )


def fit_grades(
    probability: np.ndarray,
    truth: np.ndarray,
    *,
    method: str = "temperature",
    groups: Sequence | np.ndarray | None = None,
    least: int = LEAST_CASES,
) -> Scaling:
    """Fit "temperature" or "ordinal" to probability f[n k] and truth int[n] in 0..k-1; ``groups`` are n labels.

    Without groups every case is a group of its own. T stays in [0.05, 20] and the bias in [-50, 50]: where the optimum
    lies outside (every case predicted rightly, or worse than by chance), the bound is taken and the remark says so.
    Where every forecast is uniform, any T is the same, and T is 1 with a remark.

    Raises ValueError for an unknown method, fewer than ``least`` cases, cases of one grade only, or forecasts that do
    not fit :func:`scale_grades`; for "ordinal" on two grades, also when all forecasts are equal.
    """
    if method not in GRADE_METHODS:
        raise ValueError(f"grades are scaled by {' or '.join(GRADE_METHODS)}, not by {method!r}.")
    probability, truth, _ = checked_grades(probability, truth, None)
    return _fitted(method, probability, truth, groups, least, GRADE_FLOOR)


def fit_malignancy(
    forecast: np.ndarray,
    outcome: np.ndarray,
    *,
    method: str = "temperature",
    groups: Sequence | np.ndarray | None = None,
    least: int = LEAST_CASES,
) -> Scaling:
    """Fit "temperature" or "platt" to a forecast f[n] of an outcome bool[n]; otherwise as :func:`fit_grades`."""
    if method not in MALIGNANCY_METHODS:
        raise ValueError(f"malignancy is scaled by {' or '.join(MALIGNANCY_METHODS)}, not by {method!r}.")
    forecast, outcome, _ = checked_forecast(forecast, outcome, None)
    return _fitted(method, two_columns(forecast), outcome.astype(int), groups, least, MALIGNANCY_FLOOR)


def two_columns(forecast: np.ndarray) -> np.ndarray:
    """Probabilities [not, yes] f[n 2] of a forecast f[n]."""
    return np.stack([1 - forecast, forecast], axis=-1)


def floored(probability: np.ndarray, floor: float) -> np.ndarray:
    """Probabilities f[n k], those below the floor raised to it. A row's sum does not matter to either scaling."""
    return np.maximum(probability, floor)


def tempered(probability: np.ndarray, temperature: float, bias: float = 0.0) -> np.ndarray:
    """softmax(log p / T) of positive probabilities f[n k]; ``bias`` is not used."""
    logit = np.log(probability) / temperature
    exponential = np.exp(logit - logit.max(-1, keepdims=True))
    return exponential / exponential.sum(-1, keepdims=True)


def shifted(probability: np.ndarray, temperature: float, bias: float) -> np.ndarray:
    """Ordinal scaling of positive probabilities f[n k]."""
    from scipy.special import expit

    u, v = scaled_limits(probability, 1 / temperature, bias)
    scaled = expit(u) * expit(-v) * -np.expm1(v - u)  # sigmoid(u) - sigmoid(v), exact where both are near 0 or 1
    return scaled / scaled.sum(-1, keepdims=True)


def scaled_limits(probability: np.ndarray, slope: float, bias: float) -> tuple[np.ndarray, np.ndarray]:
    """Scaled logits u of P(grade >= j) and v of P(grade > j), f[n k] each; u of the lowest grade is inf, v of the
    highest -inf.
    """
    logit = slope * exceedance_logit(probability) + bias
    ends = np.full((len(logit), 1), np.inf)
    return np.concatenate([ends, logit], axis=-1), np.concatenate([logit, -ends], axis=-1)


def exceedance_logit(probability: np.ndarray) -> np.ndarray:
    """logit P(grade > j) for j = 0..k-2, f[n k-1] descending in j, of positive probabilities f[n k]."""
    below = np.cumsum(probability, axis=-1)[:, :-1]
    above = np.cumsum(probability[:, ::-1], axis=-1)[:, -2::-1]
    return np.log(above) - np.log(below)


# --- fitting ----------------------------------------------------------------------------------------------------------


class _Optimum(NamedTuple):
    temperature: float
    bias: float
    remark: str


def _fitted(method: str, probability: np.ndarray, truth: np.ndarray, groups, least: int, floor: float) -> Scaling:
    labels = np.arange(len(truth)) if groups is None else np.asarray(groups)
    if truth.ndim != 1 or labels.shape != truth.shape:
        raise ValueError(f"truth {truth.shape} and groups {labels.shape} must be vectors of one length.")
    if len(truth) < max(least, 1):
        raise ValueError(f"{len(truth)} cases are too few to fit a scaling; it needs {max(least, 1)}.")
    if (truth == truth[0]).all():
        raise ValueError("all cases have the same true label; a scaling needs two of them.")
    raised = floored(probability, floor)
    optimum, loss = (
        (_fit_temperature(raised, truth), tempered_nll)
        if method == "temperature"
        else (_fit_slope_and_bias(raised, truth), shifted_nll)
    )
    few = int((probability < floor).any(-1).sum())
    remarks = [
        optimum.remark,
        f"cases with a probability below {floor:g}, which was raised to it: {few}" if few else "",
    ]
    return Scaling(
        method,
        optimum.temperature,
        optimum.bias,
        cases=len(truth),
        groups=len(np.unique(labels)),
        nll_before=max(loss(np.array([1.0, 0.0]), raised, truth)[0], 0.0),  # rounding can make it -1e-17
        nll_after=max(loss(np.array([1 / optimum.temperature, optimum.bias]), raised, truth)[0], 0.0),
        remark="; ".join(remark for remark in remarks if remark),
    )


def tempered_nll(slope_and_bias: np.ndarray, probability: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean negative log-likelihood of softmax(s log p), and its derivative by s = 1 / T as f[1]."""
    from scipy.special import logsumexp

    logit = np.log(probability)
    scaled = slope_and_bias[0] * logit
    log_sum = logsumexp(scaled, axis=-1)
    rows = np.arange(len(truth))
    expected = (np.exp(scaled - log_sum[:, None]) * logit).sum(-1)
    return float((log_sum - scaled[rows, truth]).mean()), np.array([(expected - logit[rows, truth]).mean()])


def shifted_nll(slope_and_bias: np.ndarray, probability: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean negative log-likelihood of ordinal scaling, and its derivatives by s = 1 / T and the bias as f[2].

    With the limits u and v of the true grade, p' = sigmoid(u) - sigmoid(v) = sigmoid(u) sigmoid(-v) (1 - exp(v - u)).
    """
    from scipy.special import expit, log_expit

    rows = np.arange(len(truth))
    u, v = (limit[rows, truth] for limit in scaled_limits(probability, *slope_and_bias))
    log_p = log_expit(u) + log_expit(-v) + np.log(-np.expm1(v - u))
    between = 1 / np.expm1(np.minimum(u - v, 700))  # 0 for the lowest and the highest grade; exp(710) overflows
    by_u, by_v = expit(-u) + between, -expit(v) - between
    unscaled = [limit[rows, truth] for limit in scaled_limits(probability, 1.0, 0.0)]
    by_slope = sum(np.where(np.isfinite(limit), limit, 0) * by for limit, by in zip(unscaled, (by_u, by_v)))
    return float(-log_p.mean()), -np.array([np.mean(by_slope), (by_u + by_v).mean()])


def _fit_temperature(probability: np.ndarray, truth: np.ndarray) -> _Optimum:
    """Root of the derivative, which rises with s = 1 / T."""
    from scipy.optimize import brentq

    if np.ptp(np.log(probability), axis=-1).max() < 1e-9:
        return _Optimum(1.0, 0.0, "every forecast is uniform, so that no temperature changes it")

    def slope_of_loss(inverse: float) -> float:
        return tempered_nll(np.array([inverse, 0.0]), probability, truth)[1][0]

    coldest, hottest = TEMPERATURES
    if slope_of_loss(1 / coldest) <= 0:
        return _Optimum(coldest, 0.0, _at_bound("temperature", coldest))
    if slope_of_loss(1 / hottest) >= 0:
        return _Optimum(hottest, 0.0, _at_bound("temperature", hottest))
    return _Optimum(float(1 / brentq(slope_of_loss, 1 / hottest, 1 / coldest, xtol=1e-13, rtol=1e-13)), 0.0, "")


def _fit_slope_and_bias(probability: np.ndarray, truth: np.ndarray) -> _Optimum:
    from scipy.optimize import minimize, root

    logit = exceedance_logit(probability)
    if probability.shape[1] == 2 and np.ptp(logit) < 1e-6:
        raise ValueError("all forecasts are equal: a temperature and a bias cannot be told apart.")
    bounds = [(1 / TEMPERATURES[1], 1 / TEMPERATURES[0]), BIASES]
    found = minimize(
        shifted_nll,
        np.array([1.0, 0.0]),
        (probability, truth),
        method="L-BFGS-B",
        jac=True,
        bounds=bounds,
        options={"ftol": 0.0, "gtol": 1e-10, "maxiter": 1000, "maxfun": 5000},
    ).x
    if _is_inside(found, bounds):  # the loss is flat to rounding near its minimum; its derivatives are not
        polished = root(lambda x: shifted_nll(x, probability, truth)[1], found, options={"xtol": 1e-12}).x
        found = polished if _is_inside(polished, bounds) and np.abs(polished - found).max() < 0.01 else found
    temperature = float(np.clip(1 / found[0], *TEMPERATURES))
    at = [
        _at_bound(name, value)
        for name, value, limits in (("temperature", temperature, TEMPERATURES), ("bias", found[1], BIASES))
        if np.isclose(value, limits, rtol=1e-9).any()
    ]
    return _Optimum(temperature, float(found[1]), "; ".join(at))


def _is_inside(point: np.ndarray, bounds: list[tuple[float, float]]) -> bool:
    return all(low < value < high for value, (low, high) in zip(point, bounds))


def _at_bound(name: str, bound: float) -> str:
    return f"the {name} is at its bound {bound:g}: the best fit lies beyond"
