"""What the docstring of every feature says: its formula and its range are evaluated, its IBSI code is looked up.

A docstring begins with FORMULA, DEFINITIONS, REMARKS, RANGE. For example: "sum_k (k - d)^2 p_-(k), d = sum_k k p_-(k),
>= 0." A factor is written beside the next, sum_ij takes the whole product or quotient that follows, 0 log2 0 = 0 and
0 / 0 = 0. The other symbols are those of the module's docstring; here they are taken from the matrices that the tests
of each module compare with counts by hand.
"""

import inspect
import re
from functools import cache

import jax
import numpy as np
import pytest
from scipy import ndimage

from thyroid_jax.radiomics import FEATURES, first_order, glcm, gldm, glrlm, glszm, levels, ngtdm, raster, shape, sizes
from thyroid_jax.radiomics.extract import CLASSES

COUNT, SIDES, PIXEL = 5, (9, 11), 0.28
# From the reference manual of the Image Biomarker Standardisation Initiative (arXiv 1612.07003).
IBSI = {
    "firstorder_10Percentile": "QG58",
    "firstorder_90Percentile": "8DWT",
    "firstorder_Energy": "N8CA",
    "firstorder_Entropy": "TLU2",
    "firstorder_InterquartileRange": "SALO",
    "firstorder_Kurtosis": "IPH6",
    "firstorder_Maximum": "84IY",
    "firstorder_Mean": "Q4LE",
    "firstorder_MeanAbsoluteDeviation": "4FUA",
    "firstorder_Median": "Y12H",
    "firstorder_Minimum": "1GSF",
    "firstorder_Range": "2OJQ",
    "firstorder_RobustMeanAbsoluteDeviation": "1128",
    "firstorder_RootMeanSquared": "5ZWQ",
    "firstorder_Skewness": "KE2M",
    "firstorder_Uniformity": "BJ5W",
    "firstorder_Variance": "ECT3",
    "glcm_Autocorrelation": "QWB0",
    "glcm_ClusterProminence": "AE86",
    "glcm_ClusterShade": "7NFM",
    "glcm_ClusterTendency": "DG8W",
    "glcm_Contrast": "ACUI",
    "glcm_Correlation": "NI2N",
    "glcm_DifferenceAverage": "TF7R",
    "glcm_DifferenceEntropy": "NTRS",
    "glcm_DifferenceVariance": "D3YU",
    "glcm_Id": "IB1Z",
    "glcm_Idm": "WF0Z",
    "glcm_Idmn": "1QCO",
    "glcm_Idn": "NDRX",
    "glcm_Imc1": "R8DG",
    "glcm_Imc2": "JN9H",
    "glcm_InverseVariance": "E8JP",
    "glcm_JointAverage": "60VM",
    "glcm_JointEnergy": "8ZQL",
    "glcm_JointEntropy": "TU9B",
    "glcm_MaximumProbability": "GYBY",
    "glcm_SumAverage": "ZGXS",
    "glcm_SumEntropy": "P6QZ",
    "glcm_SumSquares": "UR99",
    "glrlm_GrayLevelNonUniformity": "R5YN",
    "glrlm_GrayLevelNonUniformityNormalized": "OVBL",
    "glrlm_GrayLevelVariance": "8CE5",
    "glrlm_HighGrayLevelRunEmphasis": "G3QZ",
    "glrlm_LongRunEmphasis": "W4KF",
    "glrlm_LongRunHighGrayLevelEmphasis": "3KUM",
    "glrlm_LongRunLowGrayLevelEmphasis": "IVPO",
    "glrlm_LowGrayLevelRunEmphasis": "V3SW",
    "glrlm_RunEntropy": "HJ9O",
    "glrlm_RunLengthNonUniformity": "W92Y",
    "glrlm_RunLengthNonUniformityNormalized": "IC23",
    "glrlm_RunPercentage": "9ZK5",
    "glrlm_RunVariance": "SXLW",
    "glrlm_ShortRunEmphasis": "22OV",
    "glrlm_ShortRunHighGrayLevelEmphasis": "GD3A",
    "glrlm_ShortRunLowGrayLevelEmphasis": "HTZT",
    "glszm_GrayLevelNonUniformity": "JNSA",
    "glszm_GrayLevelNonUniformityNormalized": "Y1RO",
    "glszm_GrayLevelVariance": "BYLV",
    "glszm_HighGrayLevelZoneEmphasis": "5GN9",
    "glszm_LargeAreaEmphasis": "48P8",
    "glszm_LargeAreaHighGrayLevelEmphasis": "J17V",
    "glszm_LargeAreaLowGrayLevelEmphasis": "YH51",
    "glszm_LowGrayLevelZoneEmphasis": "XMSY",
    "glszm_SizeZoneNonUniformity": "4JP3",
    "glszm_SizeZoneNonUniformityNormalized": "VB3A",
    "glszm_SmallAreaEmphasis": "5QRC",
    "glszm_SmallAreaHighGrayLevelEmphasis": "HW1V",
    "glszm_SmallAreaLowGrayLevelEmphasis": "5RAI",
    "glszm_ZoneEntropy": "GU8N",
    "glszm_ZonePercentage": "P30P",
    "glszm_ZoneVariance": "3NSA",
    "gldm_DependenceEntropy": "FCBV",
    "gldm_DependenceNonUniformity": "Z87G",
    "gldm_DependenceNonUniformityNormalized": "OKJI",
    "gldm_DependenceVariance": "DNX2",
    "gldm_GrayLevelNonUniformity": "FP8K",
    "gldm_GrayLevelVariance": "1PFV",
    "gldm_HighGrayLevelEmphasis": "OAE7",
    "gldm_LargeDependenceEmphasis": "IMOQ",
    "gldm_LargeDependenceHighGrayLevelEmphasis": "9QMG",
    "gldm_LargeDependenceLowGrayLevelEmphasis": "NBZI",
    "gldm_LowGrayLevelEmphasis": "TL9H",
    "gldm_SmallDependenceEmphasis": "SODN",
    "gldm_SmallDependenceHighGrayLevelEmphasis": "JA6D",
    "gldm_SmallDependenceLowGrayLevelEmphasis": "EQ3F",
    "ngtdm_Busyness": "NQ30",
    "ngtdm_Coarseness": "QCDE",
    "ngtdm_Complexity": "HDEZ",
    "ngtdm_Contrast": "65HE",
    "ngtdm_Strength": "1X9X",
}
KINDS = {"glrlm": "run", "glszm": "zone", "gldm": "dependence"}  # which of the three codes of a shared docstring


# The notation: a formula becomes a function of an environment, symbol -> number, array or function of indices.

TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<fold>(?:sum|max|min)_[ijk]+(?:>0)?)|(?P<name>p_[+-](?=\()|[A-Za-z]\w*)"
    r"|(?P<sign>[-+*/^()|,]))"
)
FUNCTIONS = {"sqrt": np.sqrt, "exp": np.exp, "log2": lambda x: np.log2(x) if x > 0 else 0.0}


def tokens(text):
    found, place = [], 0
    while place < len(text.rstrip()):
        match = TOKEN.match(text, place)
        assert match, f"cannot read {text[place:]!r}"
        found.append((match.lastgroup, match[match.lastgroup]))
        place = match.end()
    return found


class Formula:
    """A recursive-descent reader; each method returns a function of the environment."""

    def __init__(self, text):
        self.rest = tokens(text)
        self.value = self.sum()
        assert not self.rest, f"{text!r}: {self.rest} is left over"

    def __call__(self, env):
        return self.value(env)

    def sees(self, *signs):
        return bool(self.rest) and self.rest[0][1] in signs

    def take(self, *signs):
        assert not signs or self.sees(*signs), (signs, self.rest)
        return self.rest.pop(0)[1]

    def sum(self):
        minus = self.sees("-") and self.take()
        value = self.term()
        value = (lambda env, first=value: -first(env)) if minus else value
        while self.sees("+", "-"):
            sign, left, right = (1 if self.take() == "+" else -1), value, self.term()
            value = lambda env, left=left, right=right, sign=sign: left(env) + sign * right(env)
        return value

    def term(self):
        value = self.quotient()
        while self.sees("*"):
            self.take()
            value = product(value, self.quotient())
        return value

    def quotient(self):
        value = self.product()
        while self.sees("/"):
            self.take()
            value = quotient(value, self.product())
        return value

    def product(self):
        value = self.power()
        while self.rest and not self.sees("+", "-", "*", "/", ")", ",") and not (self.sees("|") and self.inside_bars):
            value = product(value, self.power())
        return value

    inside_bars = False

    def power(self):
        value = self.factor()
        if self.sees("^"):
            self.take()
            exponent = self.factor()
            return lambda env: value(env) ** exponent(env)
        return value

    def bracketed(self, close):
        outer, self.inside_bars = self.inside_bars, close == "|"
        value = self.sum()
        self.take(close)
        self.inside_bars = outer
        return value

    def factor(self):
        kind, text = self.rest.pop(0)
        if kind == "number":
            return lambda env: float(text)
        if kind == "fold":
            return fold(text, self.quotient())
        if text == "(":
            return self.bracketed(")")
        if text == "|":
            inner = self.bracketed("|")
            return lambda env: abs(inner(env))
        if text in FUNCTIONS:
            argument = self.power()
            return lambda env: FUNCTIONS[text](argument(env))
        if text in ("p", "c", "p_x", "p_+", "p_-", "percentile") and self.sees("("):
            self.take()
            arguments = [self.sum()]
            while self.take(",", ")") == ",":
                arguments.append(self.sum())
            return lambda env: env[text](*(argument(env) for argument in arguments))
        name, _, index = text.partition("_")
        if index in ("i", "j", "k"):  # x_k, p_i
            return lambda env: env[name + "_"](index, env[index])
        return lambda env: env[text]


def product(left, right):
    """Without a look at the right factor where the left one is 0: p log2 p, and pairs that do not occur."""
    return lambda env: (value := left(env)) and value * right(env)


def quotient(left, right):
    return lambda env: (value := left(env)) and value / right(env)


def fold(text, body):
    """sum_ij, max_k, sum_k>0: over all values of the indices."""
    how, letters = text.removesuffix(">0").split("_")
    least = 1 if text.endswith(">0") else -np.inf

    def value(env):
        places = [[]]
        for letter in letters:
            places = [[*place, number] for place in places for number in env["ranges"][letter] if number >= least]
        return {"sum": sum, "max": max, "min": min}[how](body(env | dict(zip(letters, place))) for place in places)

    return value


def split_at_commas(text):
    """Parts between commas outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def docstring(name):
    return inspect.getdoc(CLASSES[name.partition("_")[0]].FEATURES[name])


def read(name):
    """(formula, {symbol: definition}, (lower, upper, lower is open, upper is open)) of a feature's docstring."""
    words = docstring(name)
    head, *parts = split_at_commas(re.split(r"\.(?:\s|$)", words, maxsplit=1)[0])
    head = head.split(" which is ")[0]
    # A definition may also stand in the second paragraph, as "I = ... is the mutual information".
    more = re.findall(r"(?:^|[ (])([A-Za-z]+) = (sum_[^.=]+?)(?: is |[,.]\s)", words.split("\n\n", 1)[-1], re.S)
    given = {symbol: text for symbol, text in (part.split(" = ") for part in parts if " = " in part)}
    definitions = {symbol: Formula(text) for symbol, text in (dict(more) | given).items()}
    (bounds,) = [part for part in parts if re.match(r"in [\[(]|>=? |any sign", part)]
    if bounds == "any sign":
        return Formula(head), definitions, (None, None, False, False)
    if bounds.startswith(">"):
        return Formula(head), definitions, (Formula(bounds.lstrip(">= ")), None, not bounds.startswith(">="), False)
    lower, upper = split_at_commas(bounds[4:-1])
    return Formula(head), definitions, (Formula(lower), Formula(upper), bounds[3] == "(", bounds[-1] == ")")


def evaluated(formula, definitions, env):
    """The formula's value; definitions are evaluated in the order in which they need one another."""
    env, waiting = dict(env), dict(definitions)
    while waiting:
        for symbol, definition in list(waiting.items()):
            try:
                env[symbol] = definition(env)
            except KeyError as missing:
                assert missing.args[0] in waiting, missing
            else:
                del waiting[symbol]
    return formula(env)


# The pictures and what the symbols are in them.


def pictures():
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.standard_normal(SIDES), 1.2)
    blob = ndimage.gaussian_filter(np.random.default_rng(3).standard_normal(SIDES), 1.5) > 0
    everywhere = np.ones(SIDES, bool)
    return {
        "smooth": (np.rint(40 * smooth / smooth.std() + 120), blob),
        "noise": (rng.integers(0, 256, SIDES), blob),
        "two greys": (np.where(rng.random(SIDES) < 0.5, 40, 200), everywhere),
        "checkerboard": (np.where(np.indices(SIDES).sum(0) % 2, 10, 250), everywhere),
        "stripes": (np.tile(50 * np.arange(SIDES[1]) % 256, (SIDES[0], 1)), everywhere),
        "a bright pixel": (np.where(np.arange(99).reshape(SIDES) == 49, 250, 10), everywhere),
        "one grey": (np.full(SIDES, 100), blob),
    }


PICTURES = pictures()


@jax.jit
def matrices(image, mask):
    """What the functions of each class take, and their values."""
    level = levels.by_count(image, mask, COUNT)
    line, row = raster.to_line(level)
    found = {
        "shape2D": shape.form(*raster.to_line(mask), SIDES[1], spacing=(0.4, 0.7)),
        "firstorder": first_order.greys(image, mask, level, COUNT, pixel=PIXEL),
        "glcm": glcm.cooccurrence(glcm.pairs(line, row, COUNT), levels.histogram(level, COUNT) > 0),
        "glrlm": sizes.table(glrlm.runs(line, row, COUNT, max(SIDES))[0]),
        "glszm": sizes.table(*glszm.zones(line, row, COUNT)),
        "gldm": sizes.table(gldm.dependences(line, row, COUNT)),
        "ngtdm": ngtdm.differences(line, row, COUNT),
    }
    return found, {
        name: CLASSES[name.partition("_")[0]].FEATURES[name](found[name.partition("_")[0]]) for name in FEATURES
    }


@cache
def measured(picture):
    image, mask = PICTURES[picture]
    return jax.tree.map(np.asarray, matrices(image.astype(np.float32), mask))


@cache
def symbols(kind, picture):
    """The environment of a class's formulas; of classes with directions in the first of them."""
    m = measured(picture)[0][kind]
    if kind == "shape2D":
        major, minor = m.moments.major, m.moments.minor
        return {
            "N": m.moments.count,
            "a": PIXEL,
            "P": m.perimeter,
            "A": m.area,
            "D": m.diameter,
            "l1": major,
            "l2": minor,
            "pi": np.pi,
        }
    if kind == "firstorder":
        return of_greys(picture, m.p)
    if kind == "ngtdm":
        seen = np.flatnonzero(m.p) + 1
        values = {"p_": lambda _, i: m.p[i - 1], "s_": lambda _, i: m.s[i - 1]}
        return values | {"N": float(m.total), "m": len(seen), "ranges": dict.fromkeys("ij", seen.tolist())}
    return of_pairs(m) if kind == "glcm" else of_table(m, kind)


def of_greys(picture, p):
    image, mask = PICTURES[picture]
    x = image[mask].astype(float)
    low, high = np.percentile(x, (10, 90))
    y = x[(x >= low) & (x <= high)]
    env = {"x": x, "N": len(x), "M": len(y), "mu": x.mean(), "nu": y.mean(), "n": COUNT, "a": PIXEL}
    env |= {f"m_{q}": ((x - x.mean()) ** q).mean() for q in (2, 3, 4)}
    env["percentile"] = lambda values, percent: np.percentile(values, percent)
    env["x_"] = lambda _, k: x[k]
    env["y_"] = lambda _, k: y[k] if k < len(y) else env["nu"]  # beyond y_M nothing is added
    env["p_"] = lambda _, i: p[i - 1]
    return env | {"ranges": {"k": range(len(x)), "i": range(1, COUNT + 1)}}


def of_pairs(m):
    p = m.p[0].astype(float)
    within = lambda i: 1 <= i <= COUNT
    px, i = p.sum(1), np.arange(1, COUNT + 1)
    joint = lambda i, j: p[int(i) - 1, int(j) - 1] if within(i) and within(j) else 0.0
    env = {
        "p": joint,
        "p_x": lambda i: px[int(i) - 1] if within(i) else 0.0,
        "n": COUNT,
        "mu": px @ i,
        "m": float(m.highest),
    }
    a, b = np.meshgrid(i, i)
    env["p_+"] = lambda k: p[a + b == k].sum()
    env["p_-"] = lambda k: p[np.abs(a - b) == k].sum()
    seen = px > 0
    inner, marginal = p[np.ix_(seen, seen)], px[seen]
    env["e2"] = np.sort(np.linalg.eigvals((inner / marginal[:, None]) @ (inner / marginal).T).real)[::-1][:2].min()
    return env | {"ranges": {"i": i.tolist(), "j": i.tolist(), "k": range(2 * COUNT + 1)}}


def of_table(m, kind):
    direction = 0 if kind == "glrlm" else ()
    p, total, of_level, of_size = (np.asarray(part[direction], float) for part in (m.p, m.total, m.of_level, m.of_size))
    column = {int(j): place for place, j in enumerate(m.sizes) if of_size[place]}
    share = {"i": lambda i: of_level[i - 1] / total, "j": lambda j: of_size[column[j]] / total}
    env = {"p": lambda i, j: p[int(i) - 1, column[int(j)]], "p_": lambda letter, number: share[letter](number)}
    env["c_"] = lambda letter, number: share[letter](number) * total
    return env | {"N": float(total), "n": COUNT, "ranges": {"i": range(1, COUNT + 1), "j": list(column)}}


def value_of(name, picture):
    value = measured(picture)[1][name]
    return float(value[0] if value.ndim else value)


def says_undefined(name):
    """The value that stands for an undefined one, and where, such as (1, "one level"); or None."""
    match = re.search(r"([\d^]+), undefined, (?:for|where) ([^.]+)\.", docstring(name))
    return match and (Formula(match[1])({}), match[2])


def is_undefined(name, picture):
    return says_undefined(name) and picture == "one grey"


@pytest.mark.parametrize("name", FEATURES)
def test_the_formula_in_the_docstring_is_what_is_computed(name):
    formula, definitions, _ = read(name)
    for picture in ("smooth", "noise", "two greys"):
        expected = evaluated(formula, definitions, symbols(name.partition("_")[0], picture))
        assert value_of(name, picture) == pytest.approx(expected, rel=2e-5, abs=2e-5), picture


@pytest.mark.parametrize("name", FEATURES)
def test_every_value_lies_in_the_range_that_the_docstring_states(name):
    _, _, (lower, upper, lower_open, upper_open) = read(name)
    for picture in PICTURES:
        value, env = value_of(name, picture), symbols(name.partition("_")[0], picture)
        if is_undefined(name, picture):
            assert value == pytest.approx(says_undefined(name)[0]), picture
            continue
        if lower is not None:
            least = lower(env)
            assert value > least if lower_open else value >= least - 1e-5 * max(1, abs(least)), (picture, value, least)
        if upper is not None:
            most = upper(env)
            assert value < most if upper_open else value <= most + 1e-5 * max(1, abs(most)), (picture, value, most)


@pytest.mark.parametrize("name", FEATURES)
def test_the_ibsi_code_in_the_docstring_is_that_of_the_manual(name):
    words, kind = docstring(name), name.partition("_")[0]
    codes = re.search(r"\. IBSI (.+)\.", words)
    if name not in IBSI:
        assert codes is None
        assert kind == "shape2D" or "No IBSI code" in words
    elif kind in KINDS:
        (code,) = [code for code, of in re.findall(r"(\w{4}) \(([^)]+)\)", codes[1]) if KINDS[kind] in of]
        assert code == IBSI[name]
    else:
        assert codes[1][:4] == IBSI[name]


def test_a_wrong_formula_is_noticed():
    env = symbols("glcm", "noise")
    right, wrong = (Formula(text)(env) for text in ("sum_ij (i - j)^2 p(i,j)", "sum_ij (i + j)^2 p(i,j)"))
    assert value_of("glcm_Contrast", "noise") == pytest.approx(right, rel=1e-5)
    assert abs(wrong - right) > 1


@pytest.mark.parametrize(
    "text, expected",
    [
        ("2 x / 3 x", 2 / 3),
        ("1 - x^2 / 2", -1),
        ("-x + 5 * 2 / x", 3),
        ("sum_i i^2 / 2", 7),
        ("sum_ij |i - j| x", 16),
        ("sum_i>0 1 / i * sum_i i", 11),
        ("log2 8 x^2", 12),
        ("sqrt(x x) |x - 5|", 6),
    ],
)
def test_the_notation(text, expected):
    assert Formula(text)({"x": 2.0, "ranges": {"i": range(1, 4), "j": range(1, 4)}}) == pytest.approx(expected)
