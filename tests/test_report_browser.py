"""The page in a browser, from disk: it draws, sorts, filters, opens cases by mouse, keys and links, and prints.

Needs playwright and a Chromium (CHROMIUM names one that is elsewhere); skipped where either is missing.
"""

import dataclasses
import os
import re
import shutil

import numpy as np
import pytest
from report_samples import HOSTILE, disc, sample_report

from thyroid_jax.evaluate.calibration import calibration_summary
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.report import Picture, Report, render_comparison, thumbnail, write_report
from thyroid_jax.evaluate.subgroups import subgroups
from thyroid_jax.evaluate.summary import at_or_above_summary, decision_curve, measure, per_grade_summary, summary

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"]
CHROMIUM = next((path for name in NAMES if name and (path := shutil.which(name))), None)
if CHROMIUM is None:
    # A browser is no part of a Python environment; where one is installed, these tests run in it.
    pytest.skip("no Chromium is installed", allow_module_level=True)


def many(count):
    """A run of that many cases with pictures of real size, of speckle."""
    rng = np.random.default_rng(0)
    cases, pictures = [], []
    for i in range(count):
        image = rng.integers(0, 255, (60, 80)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
        reference, predicted = (disc(160 + d, 120, 50, (240, 320)) for d in (0, int(rng.integers(-40, 40))))
        p = rng.dirichlet(np.ones(3))
        cases.append(
            measure(
                f"case-{i:03d}", f"g{i // 2}", predicted=predicted, reference=reference, image=image,
                probability=dict(zip("abc", p.tolist())), grade_truth="abc"[i % 3], p_malignant=float(rng.random()),
                malignant_truth=bool(i % 3), about={"device": "AB"[i % 2], "side": "left"},
            )
        )  # fmt: skip
        pictures.append(thumbnail(Picture(f"case-{i:03d}", image, reference, predicted)))
    log = [{"step": e, "epoch": e, "split": s, "loss": 1 / e} for e in range(1, 20) for s in ("train", "validation")]
    config = {f"group{i // 10}.setting{i}": i for i in range(110)}
    notes = ["A note of some length about labels and intervals. " * 3] * 5
    return Report(
        title="Many", summary=summary(cases, samples=50), cases=cases, pictures=pictures, log=log, config=config,
        notes=notes, facts={"Data": "noise", "Method": "none"}, counts={"test": {"images": count}},
        per_grade=per_grade_summary(cases, samples=20), at_or_above=at_or_above_summary(cases, samples=20),
        decision=decision_curve(cases, samples=20), calibration=calibration_summary(cases, samples=20),
        subgroups=subgroups(cases, samples=20),
    )  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def seventy(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("seventy"), many(70))


@pytest.fixture
def visit(browser):
    """visit(path, width=1280, link="") opens a page; at the end no message and no request may have occurred."""
    seen, requests, contexts = [], [], []

    def opened(path, width=1280, link="", scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri() + link)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert seen == []
    assert [url for url in requests if not url.startswith(("file://", "data:"))] == []


def column(page, heading):
    """Texts of a column of the rows that are shown."""
    heads = page.locator("#cases thead th").all_inner_texts()
    place = [head.rstrip(" ▲▼") for head in heads].index(heading) + 1
    return page.locator(f"#cases tbody tr:not([hidden]) td:nth-child({place})").all_inner_texts()


def test_sorting_puts_missing_values_last_both_ways(visit, tmp_path):
    values = [("b10", 0.5), ("b9", float("nan")), ("a", -0.25), ("c", 0.9)]
    cases = [Case(name, "g", dice=0.5, contrast_to_noise=value) for name, value in values]
    page = visit(write_report(tmp_path, Report(title="S", cases=cases)))
    head = page.get_by_role("button", name="Contrast to noise")
    head.click()
    assert column(page, "Contrast to noise") == ["−0.25", "0.50", "0.90", "–"]
    assert column(page, "Case") == ["a", "b10", "c", "b9"]
    head.click()
    assert column(page, "Contrast to noise") == ["0.90", "0.50", "−0.25", "–"]
    page.get_by_role("button", name="Case").click()
    assert column(page, "Case") == ["a", "b9", "b10", "c"]
    assert page.locator("th[aria-sort]").count() == 1


def test_grades_are_sorted_by_their_scale(visit, tmp_path):
    p = {"low": 0.2, "middle": 0.3, "high": 0.5}
    cases = [
        Case(f"{i}", "g", grade_truth=t, grade_predicted="high", probability=p)
        for i, t in enumerate(["high", "low", "", "middle"])
    ]
    page = visit(write_report(tmp_path, Report(title="S", cases=cases)))
    page.get_by_role("button", name="True grade", exact=True).click()
    assert column(page, "True grade") == ["low", "middle", "high", "–"]


def test_filters_of_numbers_texts_and_choices(visit, seventy):
    page = visit(seventy)
    shown, dice = page.locator("#shown"), page.get_by_label("Filter Dice")
    assert shown.inner_text() == "70 of 70 cases"
    values = np.array(column(page, "Dice"), float)
    expected_of = {
        "< 0.8": values < 0.8,
        ">=0.8": values >= 0.8,
        "0.7 .. 0.9": (values >= 0.7) & (values <= 0.9),
        "-": np.isnan(values),
    }
    for text, expected in expected_of.items():
        dice.fill(text)
        # Cells are rounded to three digits, the filter is not: a value at the bound may fall on either side.
        assert abs(len(column(page, "Dice")) - expected.sum()) <= 1, text
        assert shown.inner_text() == f"{len(column(page, 'Dice'))} of 70 cases"
    dice.fill("< x")
    assert dice.get_attribute("aria-invalid") == "true" and len(column(page, "Dice")) == 70
    dice.fill("")
    page.get_by_label("Filter True grade").select_option("b")
    assert set(column(page, "True grade")) == {"b"} and len(column(page, "Case")) == 23
    page.get_by_label("Filter device").select_option("A")
    assert set(column(page, "device")) == {"A"} and len(column(page, "Case")) == 11
    page.get_by_label("Filter Case").fill("case-00")
    assert column(page, "Case") == ["case-004"]
    page.locator("#filter").fill("nothing of the kind")
    assert column(page, "Case") == [] and shown.inner_text() == "0 of 70 cases"


def test_viewer_by_mouse_keys_and_link(visit, seventy):
    page = visit(seventy)
    name, viewer = page.locator("#viewer-name"), page.locator("#viewer")
    page.get_by_label("Filter True grade").select_option("c")
    page.locator("#cases tbody tr:not([hidden])").nth(1).click()
    assert viewer.is_visible() and name.inner_text() == "case-005" and page.url.endswith("#case=case-005")
    assert page.locator("#viewer-place").inner_text() == "2 of 23"
    assert page.locator("#viewer-picture path.reference").count() == 1
    for key, expected in (("ArrowRight", "008"), ("ArrowDown", "011"), ("ArrowLeft", "008"), ("ArrowUp", "005")):
        page.keyboard.press(key)
        assert name.inner_text() == f"case-{expected}" and page.url.endswith(f"#case=case-{expected}"), key
    for _ in range(3):  # the first of the filtered rows is the end
        page.keyboard.press("ArrowLeft")
    assert name.inner_text() == "case-002"
    page.keyboard.press("Escape")
    assert not viewer.is_visible() and "#" not in page.url
    # The row of the case has the focus; arrow keys move it, and Enter opens it.
    page.locator('tr[data-case="2"]:focus').wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert name.inner_text() == "case-005"
    page.locator("#next").click()
    assert name.inner_text() == "case-008"
    page.locator("#close").click()
    assert not viewer.is_visible()
    linked = visit(seventy, link="#case=case-042")
    assert linked.locator("#viewer-name").inner_text() == "case-042"
    assert not visit(seventy, link="#case=no-such-case").locator("#viewer").is_visible()


def test_viewer_shows_what_the_table_says(visit, seventy):
    page = visit(seventy, link="#case=case-010")
    row = page.locator('#cases tbody tr[data-case="10"]')
    dice = row.locator("td").nth(
        [h.rstrip(" ▲▼") for h in page.locator("#cases thead th").all_inner_texts()].index("Dice")
    )
    facts = page.locator("#viewer-facts").inner_text()
    assert re.search(rf"Dice\s+{dice.text_content()}", facts)
    assert facts.count("◂ predicted") == 1 and facts.count("◂ true") == 1 and "device" in facts
    widths = page.locator("#viewer-facts .share-bar").evaluate_all(
        "bars => bars.map(bar => parseFloat(bar.style.width))"
    )
    assert sum(widths[:3]) == pytest.approx(100, abs=0.1)


def test_outlines_are_shown_and_hidden_everywhere(visit, seventy):
    page = visit(seventy, link="#case=case-001")
    hidden = lambda kind: page.locator(f"#viewer path.{kind}").evaluate("path => getComputedStyle(path).visibility")
    page.locator("#viewer .show-reference").uncheck()
    assert hidden("reference") == "hidden" and hidden("predicted") == "visible"
    page.keyboard.press("ArrowRight")
    assert hidden("reference") == "hidden"
    page.keyboard.press("Escape")
    assert not page.locator("#worst ~ * .show-reference, h2 .show-reference").first.is_checked()


def test_pictures_are_drawn_when_they_come_into_sight(visit, seventy):
    page = visit(seventy)
    drawn = lambda: page.locator("#cases td.thumb image").count()
    before = drawn()
    page.locator("#cases tbody tr").last.scroll_into_view_if_needed()
    page.locator("#cases tbody tr:last-child td.thumb image").wait_for()
    assert before < 30 and drawn() > before


def test_worst_cases_are_links_to_the_viewer(visit, seventy):
    page = visit(seventy)
    card = page.locator("a.card").first
    expected = card.locator(".name").inner_text()
    card.click()
    assert page.locator("#viewer-name").inner_text() == expected
    page.go_back()
    assert not page.locator("#viewer").is_visible()


def test_hostile_names_are_only_text(visit, tmp_path):
    path = write_report(tmp_path, sample_report())
    page = visit(path)
    assert page.evaluate("window.alert.toString().includes('native code')")
    page.locator('#cases tbody tr[data-case="3"]').click()
    assert page.locator("#viewer-name").text_content() == HOSTILE
    again = visit(path, link=page.url[page.url.index("#") :])
    assert again.locator("#viewer-name").text_content() == HOSTILE
    assert again.locator("#viewer script").count() == 0


def test_pictures_beside_the_page_are_loaded(visit, tmp_path):
    page = visit(write_report(tmp_path, sample_report(), budget=0), link="#case=case-01")
    address = page.locator("#viewer-picture image").get_attribute("href")
    assert address.startswith("pictures/")
    size = page.evaluate(
        "async address => { const seen = new Image(); seen.src = address; await seen.decode(); return seen.width }",
        address,
    )
    assert size == 64


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_cut_at_the_side(visit, seventy, tmp_path, width, scheme):
    for path in (seventy, write_report(tmp_path, sample_report())):
        page = visit(path, width=width, scheme=scheme)
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        outside = page.evaluate(
            "width => [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > width + 1"
            " && !e.closest('.scroll, .table-box, svg')).map(e => e.outerHTML.slice(0, 80))", width
        )  # fmt: skip
        assert outside == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == (scheme == "dark")


@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_seventy_cases_print_on_six_pages(visit, seventy, paper):
    printed = visit(seventy).pdf(format=paper)
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 6


def test_interactive_soon(visit, tmp_path, record_property):
    path = write_report(tmp_path, many(350))
    assert path.stat().st_size < 20_000_000
    page = visit(path)
    page.locator("#shown", has_text="350 of 350").wait_for()
    milliseconds = page.evaluate("performance.timing.domInteractive - performance.timing.navigationStart")
    record_property("interactive_ms", milliseconds)
    assert 0 < milliseconds < 60_000  # 2 s on a quiet machine; the machine of the test may be busy


def test_comparison_opens_without_a_message(visit, tmp_path):
    report = sample_report()
    other = [dataclasses.replace(case, dice=case.dice / 2) for case in report.cases]
    path = tmp_path / "compare.html"
    tables, pictures = {"plain": report.cases, HOSTILE: other}, {"plain": report.pictures}
    path.write_text(render_comparison(tables, pictures, samples=20))
    for width in (390, 1280):
        page = visit(path, width=width)
        page.locator(".show-predicted").first.uncheck()
        assert page.locator("path.predicted").first.evaluate("path => getComputedStyle(path).visibility") == "hidden"
        assert page.evaluate("document.documentElement.scrollWidth") == width
