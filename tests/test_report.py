"""The page: what stands in it, what must never stand in it, and the drawing of outlines."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.metrics import measure, summary
from thyroid_jax.evaluate.report import (
    PREDICTED_COLOUR,
    REFERENCE_COLOUR,
    Picture,
    Report,
    best_median_worst,
    overlay,
    overlay_grid,
    png,
    render,
    training_curves,
    write_report,
)

HOSTILE = "<script>alert(1)</script>\" onload='x' & {{ 7*7 }} $\\frac{"


class Page(HTMLParser):
    """Tags, attributes and text; complains about elements left open."""

    VOID = ("meta", "br", "input", "image", "path", "rect", "use")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend((name, value or "") for name, value in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend((name, value or "") for name, value in attrs)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def disc(x, y, radius, shape=(48, 64)):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(rows - y, columns - x) < radius


@pytest.fixture(scope="module")
def report():
    random = np.random.default_rng(0)
    cases, pictures = [], []
    entry = ("value", "low", "high", "n", "undefined", "groups", "replicates", "replicates_undefined")
    for i in range(14):
        name = HOSTILE if i == 3 else f"case-{i:02d}"
        reference, predicted = disc(30, 24, 12), disc(30 + i, 24, 11)
        predicted = np.zeros_like(predicted) if i == 9 else predicted
        probability = dict(zip(("3", "4a", "<5>"), map(float, random.dirichlet(np.ones(3)))))
        truth = "" if i == 2 else "4a"
        with_mask = None if i == 6 else reference
        cases.append(
            measure(
                name,
                f"g{i // 2}",
                part=f"fold {i % 2}",
                predicted=predicted,
                reference=with_mask,
                spacing=(0.1, 0.2),
                probability=probability,
                grade_truth=truth,
                p_malignant=i / 20,
                malignant_truth=None if i == 7 else i > 11,
            )
        )
        pictures.append(
            Picture(name, random.integers(0, 255, (48, 64)).astype(np.uint8), with_mask, predicted.astype(float))
        )
    log = [
        {"step": 10 * e, "epoch": e, "split": split, "loss": 1 / e, HOSTILE: e, "note": "text", "bad": float("nan")}
        for e in range(1, 6)
        for split in ("train", HOSTILE)
    ]
    return Report(
        title=f"Run {HOSTILE}",
        subtitle=HOSTILE,
        config={HOSTILE: HOSTILE},
        summary={
            **summary(cases, samples=200),
            HOSTILE: dict.fromkeys(entry, 0.5),
        },
        counts={HOSTILE: {HOSTILE: 3}, "test": {"images": 14}},
        cases=cases,
        log=log,
        pictures=pictures,
        notes=[HOSTILE, "Grades are of the Kwak family."],
    )


@pytest.fixture(scope="module")
def text(report):
    return render(report)


def test_page_is_well_formed_and_holds_every_part(report, text):
    page = Page(text)
    words = " ".join("".join(page.text).split())
    for expected in (
        "Grades are of the Kwak family.",
        "Quadratic-weighted kappa",
        f"{report.summary['dice']['value']:.3f}",
        f"{report.summary['dice']['low']:.3f} to {report.summary['dice']['high']:.3f}",
        f"{report.summary['hd95_px']['value']:.1f} px",
        f"{report.summary['hd95_mm']['value']:.2f} mm",
        "Malignancy: sensitivity", "truth malignant", "HD95 mm", "P(malignant)", "fold 1",
        "Lowest Dice", "Around the median", "Highest Dice", "Without a reference outline",
        "HD95 undefined", "No predicted outline.", "Evaluated cases: 14", "loss by epoch",
    ):  # fmt: skip
        assert expected in words, expected
    table = re.search(r'<table id="cases".*?</table>', text, re.DOTALL)[0]
    assert table.count("<tr>") == 15
    heads = re.findall(r'<button type="button">(.*?)</button>', table)
    assert heads == [
        "Case", "Group", "Part", "Dice", "IoU", "HD95 px", "HD95 mm", "Reference area", "Predicted area",
        "True grade", "Predicted grade", "P(grade)", "True malignancy", "P(malignant)",
    ]  # fmt: skip
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def row_of(text, name):
    """Cells of the summary's row of that name, as text."""
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", text, re.DOTALL)
    return " ".join("".join(Page(next(row for row in rows if name in row)).text).split())


def test_left_out_replicates_are_remarked_from_one_percent():
    entry = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9, "undefined": 0, "groups": 9, "replicates": 1000}
    for undefined, remark in ((0, None), (10, None), (11, "1.1 % of the resamples left out"), (1000, "100.0 %")):
        summary = {"macro_f1": entry | {"replicates_undefined": undefined}}
        row = row_of(render(Report(title="R", summary=summary)), "Macro-F1")
        assert (remark in row) if remark else ("left out" not in row), undefined


def test_an_interval_without_spread_is_remarked():
    mask = np.ones((8, 8), bool)
    cases = [measure(f"{i}", f"{i}", predicted=mask, reference=mask) for i in range(3)]
    found = summary(cases, samples=20)
    assert found["dice"]["low"] == found["dice"]["high"] == 1
    assert "which is not certainty" in row_of(render(Report(title="R", summary=found)), "Dice")
    found["dice"]["low"] = 0.9
    assert "which is not certainty" not in row_of(render(Report(title="R", summary=found)), "Dice")


def test_cells_of_the_case_table(report, text):
    table = re.search(r'<table id="cases".*?</table>', text, re.DOTALL)[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)[1:]
    cells = [re.findall(r'data-v="(.*?)">(.*?)</td>', row) for row in rows]
    case = report.cases[5]
    assert cells[5][6] == (str(case.hd95_mm), f"{case.hd95_mm:.2f}") and cells[9][6] == ("", "–")
    assert cells[5][-2:] == [("benign", "benign"), ("0.25", "0.25")]
    assert cells[11][-2:] == [("benign", "benign"), ("0.55", "0.55 ✗")]
    assert cells[7][-2:] == [("", "–"), ("0.35", "0.35")]
    assert cells[13][-2:] == [("malignant", "malignant"), ("0.65", "0.65")]


def test_what_was_not_measured_is_not_on_the_page():
    mask = np.ones((8, 8), bool)
    cases = [measure(f"{i}", f"{i}", part="test", predicted=mask, reference=mask) for i in range(3)]
    page = render(Report(title="Outlines only", cases=cases, summary=summary(cases, samples=20)))
    words = " ".join("".join(Page(page).text).split())
    heads = re.findall(r'<button type="button">(.*?)</button>', page)
    assert heads == ["Case", "Group", "Dice", "IoU", "HD95 px", "Reference area", "Predicted area"]
    assert " mm" not in words and "Malignancy" not in words and "True malignancy" not in words
    assert "True grade" not in words


def test_untrusted_text_is_only_ever_text(text):
    page = Page(text)
    assert (
        page.tags.count("script") == 1 and "<script>alert" not in text and "49" not in re.findall(r"\{\{.*?\}\}", text)
    )
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert HOSTILE in "".join(page.text)
    # The policy allows the page's own script by its hash, and nothing that comes over the network.
    import base64
    import hashlib

    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(value for name, value in page.attributes if value.startswith("default-src"))
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_page_names_no_outside_address(text):
    assert not re.search(r"""\w+://|["'(]\s*//|@import""", text)
    for name, value in Page(text).attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("data:image/png;base64,", "#"))


def test_same_report_same_page(report, text):
    assert render(report) == text


def test_empty_reports(tmp_path):
    words = "".join(Page(render(Report(title="Empty"))).text)
    assert "Nothing was measured" in words and "No case was evaluated." in words
    image, mask = np.zeros((8, 8), np.uint8), np.ones((8, 8), bool)
    # No grade at all; no mask at all; a grade without masks; a case without anything.
    grades = {"a": 0.3, "b": 0.7}
    for case in (
        measure("x", "p", predicted=mask, reference=mask),
        measure("x", "p", probability=grades, grade_truth="a"),
        measure("x", "p", predicted=~mask, probability=grades),
        Case("x", "p"),
        Case("x", "p", grade_truth="a"),
        Case("x", "p", malignant_truth=True),
        Case("x", "p", p_malignant=0.2),
    ):
        for picture in (Picture("x", image), Picture("x", image, mask, ~mask)):
            Page(render(Report(title="One", cases=[case], summary=summary([case]), pictures=[picture])))
    words = "".join(Page(render(Report(title="\udcff"))).text)
    assert "?" in words


def test_written_in_one_step(tmp_path, monkeypatch):
    path = write_report(tmp_path / "report", Report(title="Old"))
    assert path == tmp_path / "report" / "index.html" and "Old" in path.read_text()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path / "report", Report(title="New"))
    assert "Old" in path.read_text() and [file.name for file in path.parent.iterdir()] == ["index.html"]


@pytest.mark.parametrize("n", [0, 1, 5, 8, 11, 12, 13, 40])
def test_best_median_worst(n):
    order = np.random.default_rng(n).permutation(n)
    cases = [Case(str(i), "p", dice=i / 100) for i in order] + [Case("none", "p")]
    chosen = {name: [int(case.case) for case in some] for name, some in best_median_worst(cases).items()}
    everyone = chosen["worst"] + chosen["median"] + chosen["best"]
    assert everyone == sorted(everyone) and len(set(everyone)) == len(everyone) == min(n, 12)
    assert chosen["worst"] == list(range(min(n, 4)))
    if n >= 8:
        assert chosen["best"] == list(range(n - 4, n))
    if n == 40:
        assert chosen["median"] == [18, 19, 20, 21]


def test_overlay_draws_the_boundary_and_nothing_else():
    image = np.full((48, 64), 100, np.uint8)
    reference, predicted = disc(20, 24, 8), disc(45, 24, 8)
    drawn = overlay(image, reference, predicted.astype(float))
    assert drawn.shape == (48, 64, 3) and drawn.dtype == np.uint8
    blue, orange = (drawn == REFERENCE_COLOUR).all(axis=-1), (drawn == PREDICTED_COLOUR).all(axis=-1)
    assert (blue <= reference).all() and (orange <= predicted).all()
    assert (drawn[~blue & ~orange] == 100).all()
    # A disc of radius 8 has a 4-connected boundary between 2 pi (r - 1) and 8 r pixels.
    assert 2 * np.pi * 7 < blue.sum() < 64 and blue.sum() == orange.sum()
    np.testing.assert_array_equal(overlay(image, None, None, scale=2), np.full((96, 128, 3), 100))
    for bad in ((image.astype(float), None, None), (image, reference[:-1], None)):
        with pytest.raises(ValueError, match="uint8"):
            overlay(*bad)


def test_overlay_grid_and_png_survive_hostile_captions():
    picture = Picture(HOSTILE + "甲状腺", np.full((48, 64), 90, np.uint8), disc(30, 24, 10), np.zeros((48, 64)))
    sheet = overlay_grid([picture] * 3, columns=2, width_px=600)
    assert sheet.dtype == np.uint8 and sheet.shape[1:] == (600, 3)
    near_blue = np.abs(sheet.astype(int) - REFERENCE_COLOUR).max(axis=-1) < 12
    assert near_blue.sum() > 100
    from io import BytesIO

    from PIL import Image

    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(png(sheet)))), sheet)
    for bad in ([], None), ([picture], ["one", "two"]):
        with pytest.raises(ValueError, match="do not make a sheet"):
            overlay_grid(*bad)


def test_outlines_on_the_page_sit_on_the_mask(text):
    # The reference disc of radius 12 about column 30, row 24: its path in SVG pixels is centred half a pixel further.
    path = re.search(r'class="outline reference" d="M([^Z]*)Z', text)[1]
    points = np.array([pair.split(",") for pair in path.split()], float)
    assert np.hypot(*(points - [30.5, 24.5]).T) == pytest.approx(11.5, abs=0.8)


def test_training_curves():
    log = [{"step": i, "split": "train", "loss": float(i)} for i in range(1000)] + [
        {"step": 5, "loss": float("inf"), "flag": True}
    ]
    (panel,) = training_curves(log)
    assert panel["name"] == "loss" and panel["x"] == "step" and panel["splits"] == ["train"] and panel["thinned"]
    assert str(panel["svg"]).startswith("<svg") and "#0102" not in panel["svg"]
    assert [panel["name"] for panel in training_curves([{"epoch": 1, "a": 1, "b": 2.0}], ["b", "c"])] == ["b"]
    twice = [{"step": i, "epoch": i // 2, "loss": 1.0} for i in range(4)]
    assert [panel["x"] for panel in training_curves(twice)] == ["step"]
    assert training_curves([]) == []
