"""The page: what stands in it, what must never stand in it, and how it is written beside its pictures."""

import base64
import hashlib
import json
import re

import numpy as np
import pytest
from report_samples import HOSTILE, NAMES, Page, disc, sample_report

from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.report import BUDGET, Picture, Report, Thumbnail, render, thumbnail, write_report
from thyroid_jax.evaluate.report.page import link_to
from thyroid_jax.evaluate.subgroups import Characteristic, Estimate, Subgroup
from thyroid_jax.evaluate.summary import measure, summary

NAN = float("nan")


@pytest.fixture(scope="module")
def report():
    return sample_report()


@pytest.fixture(scope="module")
def text(report):
    return render(report)


def case_data(text):
    return json.loads(re.search(r'<script type="application/json" id="case-data">(.*?)</script>', text, re.DOTALL)[1])


def section(text, anchor):
    """The text of one section."""
    found = re.search(rf'<section aria-labelledby="{anchor}".*?</section>', text, re.DOTALL)
    return Page(found[0]).words if found else ""


# --- what stands in it ------------------------------------------------------------------------------------------------


def test_page_is_well_formed_and_holds_every_section(report, text):
    page = Page(text)
    anchors = re.findall(r'<li><a href="#([\w-]+)">', text)
    assert anchors == [
        "results", "remarks", "worst", "measures", "classes", "distributions", "subgroups", "readers", "training",
        "per-case", "counted", "notes", "settings",
    ]  # fmt: skip
    order = [text.index(f'id="{anchor}"') for anchor in anchors]
    assert order == sorted(order)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_first_section_has_values_intervals_and_baselines(report, text):
    words = section(text, "results")
    for key, digits, unit in (
        ("dice", 3, ""),
        ("hd95_mm", 2, " mm"),
        ("quadratic_kappa", 3, ""),
        ("malignant_auroc", 3, ""),
    ):
        entry = report.summary[key]
        assert f"{entry['value']:.{digits}f}{unit}".replace("-", "−") in words, key
        assert f"{entry['low']:.{digits}f} to {entry['high']:.{digits}f}".replace("-", "−") in words, key
    # 13 references of 437 pixels in images of 48 x 64.
    share = disc(30, 24, 12).sum() / (48 * 64)
    assert f"{2 * share / (1 + share):.3f} whole image" in words
    assert "0.000 chance" in words and "0.500 chance" in words


def test_the_worst_are_shown_first_with_their_pictures(report, text):
    gallery = re.search(r'<section aria-labelledby="worst".*?</section>', text, re.DOTALL)[0]
    names = [Page(name).words for name in re.findall(r'<span class="name">(.*?)</span>', gallery)]
    dice = sorted((case.dice, case.case) for case in report.cases if not np.isnan(case.dice))
    assert names[:5] == [name for _, name in dice[:5]] and names[0] == "case-09"  # the empty prediction
    assert gallery.count("<image") == len(names) and "HD95 undefined" in Page(gallery).words
    assert "No predicted outline." in Page(gallery).words
    assert [f'href="{link_to(name)}"' in gallery or HOSTILE in name for name in names] == [True] * len(names)


def test_without_grades_the_worst_calls_are_shown():
    mask = np.ones((8, 8), bool)
    cases = [
        measure(f"{i}", f"{i}", predicted=mask, reference=mask, p_malignant=p, malignant_truth=truth)
        for i, (p, truth) in enumerate([(0.9, False), (0.6, False), (0.05, True), (0.9, True)])
    ]
    words = section(render(Report(title="R", cases=cases)), "worst")
    assert words.index("Malignancy most surely wrong 2") > words.index("Lowest Dice") and "truth malignant ✗" in words


def test_cases_without_a_reference_are_shown_as_such_and_right_ones_are_not():
    image = thumbnail(Picture("x", np.full((8, 8), 9, np.uint8)))
    bare = Case("x", "g", grade_predicted="a", probability={"a": 1.0, "b": 0.0}, p_malignant=0.9)
    right = [
        Case("x", "g", grade_truth="a", grade_predicted="a", probability={"a": 1.0, "b": 0.0}),
        Case("x", "g", malignant_truth=True, p_malignant=0.9),
    ]
    assert "Without a reference" in render(Report(title="none", cases=[bare], pictures=[image]))
    for case in right:
        assert "Without a reference" not in render(Report(title="right", cases=[case], pictures=[image]))


def test_a_name_that_turns_the_text_round_leaves_the_numbers_beside_it():
    """U+202E shows what follows it from right to left: 0.12 as 21.0, unless the name is set apart."""
    p = {"\u202e5": 0.88, "4": 0.12}
    case = Case("x", "g", dice=0.5, grade_truth="4", grade_predicted="\u202e5", probability=p)
    text = render(Report(title="turned", cases=[case]))
    assert "Grade <bdi>\u202e5</bdi> (0.88)," in text and "truth <bdi>4</bdi> (0.12)" in text


def test_the_choices_of_a_filter_are_the_texts_of_the_cells():
    """An option without a value has its text with the spaces run together, which no cell has."""
    cases = [Case(f"{i}", "g", about={"side": side}) for i, side in enumerate(["far  left", " right"])]
    text = render(Report(title="spaces", cases=cases))
    for side in ("far  left", " right"):
        assert f'<option value="{side}">' in text and f'data-v="{side}">{side}</td>' in text


def test_subgroups_readers_calibration_and_provenance(report, text):
    words = section(text, "subgroups")
    assert "Exploratory" in words and "true malignancy" in words and "device" not in words  # under ten cases each
    readers = section(text, "readers")
    for row in report.readers:
        assert f"Model and reader {row.reader} {row.dice.value:.3f}" in readers
    assert "Reader 1 and reader 2 – –" in readers and "mean over pairs 0.870 12" in readers
    classes = section(text, "classes")
    assert f"{report.calibration['grade_brier']['value']:.3f}" in classes
    assert f"{report.calibration_by_chance['grade_brier']['value']:.3f} (" in classes
    assert section(text, "settings").startswith("Settings and provenance version")


def test_a_subgroup_with_its_estimates_and_p():
    some, none = Estimate(0.5, 0.4, 0.6, 3, 2), Estimate(NAN, NAN, NAN, 2, 2)
    part = Subgroup("A <b>", 4, 3, {"dice": some, "quadratic_kappa": none})
    found = [Characteristic("device", (part,), 0.0004, 0.02), Characteristic("side", (part,), NAN, NAN)]
    words = section(render(Report(title="R", subgroups=found)), "subgroups")
    assert "Dice Grades: quadratic kappa device equal Dice: p < 0.001, adjusted p = 0.020 A <b>" in words
    assert "side A <b> 4 3 0.500 (0.400 to 0.600) 3 cases, 2 groups –" in words


def row_of(text, name):
    """Cells of a table's row of that name, as text."""
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", text, re.DOTALL)
    return [Page(row).words for row in rows if Page(row).words.startswith(name)][-1]


def test_left_out_replicates_are_remarked_from_one_percent():
    entry = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9, "undefined": 0, "groups": 9, "replicates": 1000}
    for undefined, remark in ((0, None), (10, None), (11, "1.1 % of the resamples left out"), (1000, "100.0 %")):
        summary = {"macro_f1": entry | {"replicates_undefined": undefined}}
        row = row_of(render(Report(title="R", summary=summary)), "Grades: macro-F1")
        assert (remark in row) if remark else ("left out" not in row), undefined


def test_an_interval_without_spread_is_remarked():
    mask = np.ones((8, 8), bool)
    cases = [measure(f"{i}", f"{i}", predicted=mask, reference=mask) for i in range(3)]
    found = summary(cases, samples=20)
    assert found["dice"]["low"] == found["dice"]["high"] == 1
    assert "which is not certainty" in row_of(render(Report(title="R", summary=found)), "Dice")
    found["dice"]["low"] = 0.9
    assert "which is not certainty" not in row_of(render(Report(title="R", summary=found)), "Dice")


def test_what_was_not_measured_is_not_on_the_page():
    mask = np.ones((8, 8), bool)
    cases = [measure(f"{i}", f"{i}", part="test", predicted=mask, reference=mask) for i in range(3)]
    page = render(Report(title="Outlines only", cases=cases, summary=summary(cases, samples=20)))
    words = Page(page).words.split("use strict")[0]
    heads = re.findall(r'<button type="button">(.*?)</button>', page)
    assert heads[:5] == ["Case", "Group", "Dice", "HD95 px", "IoU"]
    assert not any("grade" in head or "malign" in head or "mm" in head for head in heads)
    assert " mm " not in words and "Malignancy" not in words and "True grade" not in words and "Subgroups" not in words
    assert "Picture" not in heads and "Picture" not in words.split("Every case")[-1]


def test_empty_reports():
    words = Page(render(Report(title="Empty"))).words
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
        measure("x", "p", probability={"only": 1.0}, grade_truth="only"),
    ):
        for picture in (Picture("x", image), Picture("x", image, mask, ~mask)):
            found = Report(
                title="One", cases=[case], summary=summary([case], samples=20), pictures=[thumbnail(picture)]
            )
            assert Page(render(found)).words.count("1 true cases") == 0
    words = Page(render(Report(title="\udcff", cases=[Case("\udcff", "p")]))).words
    assert "?" in words


# --- what must never stand in it --------------------------------------------------------------------------------------


def test_untrusted_text_is_only_ever_text(text):
    page = Page(text)
    assert page.tags.count("script") == 2 and "<script>alert" not in text
    assert "49" not in re.findall(r"\{\{.*?\}\}", text)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert HOSTILE in "".join(page.text)
    # The policy allows the page's own script by its hash, and nothing that comes over the network.
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(value for name, value in page.attributes if value.startswith("default-src"))
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_data_of_the_cases_cannot_end_its_element(report, text):
    raw = re.search(r'id="case-data">(.*?)</script>', text, re.DOTALL)[1]
    assert not set("<>&\u2028\u2029") & set(raw)
    found = case_data(text)
    assert [one["key"] for one in found] == [case.case for case in report.cases]
    assert found[3]["key"] == HOSTILE and found[3]["guidance"][0] == [HOSTILE, "4.500", "–"]


def test_page_names_no_outside_address(text):
    assert set(re.findall(r"""\w+://[^\s"'<]*""", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "@import" not in text
    for name, value in Page(text).attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("data:image/webp;base64,", "#"))
    assert {one["picture"]["href"][:23] for one in case_data(text)} == {"data:image/webp;base64,"}


def test_same_report_same_page(report, text):
    assert render(report) == text


# --- the data of a case -----------------------------------------------------------------------------------------------


def test_every_row_has_its_own_picture_and_values(report, text):
    """A row and its data are matched by their place: a mix-up would show the wrong patient."""
    rows = re.findall(r'<tr data-case="(\d+)">(.*?)</tr>', text, re.DOTALL)
    assert [int(place) for place, _ in rows] == list(range(14))
    pictures = {picture.case: picture for picture in report.pictures}
    for (_, row), one, case in zip(rows, case_data(text), report.cases):
        cells = re.findall(r'data-v="(.*?)">(.*?)</td>', row)
        assert Page(f"<p>{cells[0][1]}</p>").words == case.case.replace("  ", " ") == one["key"]
        assert one["picture"]["href"] == pictures[case.case].data_uri
        assert one["picture"]["predicted"] == pictures[case.case].predicted
        assert [bar["name"] for bar in one["bars"]] == list(NAMES)
        assert [bar["share"] for bar in one["bars"]] == [round(p, 4) for p in case.probability.values()]
        assert [bar["name"] for bar in one["bars"] if bar["true"]] == ([case.grade_truth] if case.grade_truth else [])
        assert [bar["name"] for bar in one["bars"] if bar["predicted"]] == [case.grade_predicted]
        assert one["guidance"][1] == ["elongation", "0.500", "0.250"]
        reader = case.reader_dice[0]
        assert one["readers"][0] == ["Reader 1", f"{reader:.3f}", "4a"]


def test_cases_of_one_name_keep_links_of_their_own():
    text = render(Report(title="R", cases=[Case("x", "p", dice=0.5), Case("x", "p", dice=0.25), Case("y", "p")]))
    assert [one["key"] for one in case_data(text)] == ["x (1)", "x (2)", "y"]
    assert section(text, "worst").split("Lowest Dice")[1].split()[:2] == ["x", "(2)"]


def test_two_pictures_of_one_case_are_refused():
    picture = thumbnail(Picture("x", np.zeros((8, 8), np.uint8)))
    with pytest.raises(ValueError, match="two pictures"):
        Report(title="R", pictures=[picture, picture])


# --- writing ----------------------------------------------------------------------------------------------------------


def test_written_in_one_step(tmp_path, monkeypatch):
    path = write_report(tmp_path / "report", Report(title="Old"))
    assert path == tmp_path / "report" / "index.html" and "Old" in path.read_text()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path / "report", Report(title="New"))
    assert "Old" in path.read_text() and [file.name for file in path.parent.iterdir()] == ["index.html"]


def test_pictures_above_the_budget_lie_beside_the_page(report, tmp_path):
    size = sum(len(picture.data_uri) + len(picture.reference) + len(picture.predicted) for picture in report.pictures)
    inside = write_report(tmp_path, report, budget=size).read_text()
    assert not (tmp_path / "pictures").exists() and "img-src data:;" in inside
    path = write_report(tmp_path, report, budget=size - 1)
    text = path.read_text()
    assert "img-src data: &#39;self&#39;;" in text and "base64" not in text
    data = case_data(text)
    pictures = {picture.case: picture for picture in report.pictures}
    assert len({one["picture"]["href"] for one in data}) == 14
    for one in data:
        assert re.fullmatch(r"pictures/[0-9a-f]{8}-\d{5}\.webp", one["picture"]["href"])
        assert (tmp_path / one["picture"]["href"]).read_bytes() == pictures[one["key"]].webp
    # A later, smaller report leaves no picture of the earlier one, and nothing of the user's is removed.
    (tmp_path / "pictures" / "mine.png").write_bytes(b"x")
    write_report(tmp_path, Report(title="Later"))
    assert [file.name for file in (tmp_path / "pictures").iterdir()] == ["mine.png"]


def test_350_heaviest_pictures_fit_into_the_budget():
    from thyroid_jax.evaluate.report.pictures import HEAVIEST

    heaviest = Thumbnail("x", 512, 512, bytes(HEAVIEST), "1" * 1250, "2" * 1250)
    assert 350 * (len(heaviest.data_uri) + 2500) < BUDGET
