"""The page of several methods: values of each, paired differences, and the cases that changed most, both ways."""

import dataclasses
import re

import numpy as np
import pytest
from report_samples import HOSTILE, Page, sample_cases

from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.paired import compare
from thyroid_jax.evaluate.report import render_comparison

NAN = float("nan")


def section(text, anchor):
    return Page(re.search(rf'<section aria-labelledby="{anchor}".*?</section>', text, re.DOTALL)[0]).words


@pytest.fixture(scope="module")
def found():
    cases, pictures = sample_cases(16)
    better = {4: 0.3, 5: 0.2, 6: 0.5, 8: -0.3, 10: -0.1}  # case 6 has no reference outline
    other = [dataclasses.replace(case, dice=case.dice + better.get(i, 0.0)) for i, case in enumerate(cases)]
    return {"plain": cases, HOSTILE: other, "third": other}, {"plain": pictures, HOSTILE: pictures[:6]}


@pytest.fixture(scope="module")
def text(found):
    return render_comparison(*found, title=HOSTILE, samples=50)


def test_every_method_has_its_values_and_every_difference_its_interval(found, text):
    tables, _ = found
    compared = compare(tables, samples=50)
    results, differences = section(text, "results"), section(text, "differences")
    for method in tables:
        dice = compared.summaries[method]["dice"]
        assert f"{dice['value']:.3f} ({dice['low']:.3f} to {dice['high']:.3f})" in results
    for gap in compared.gaps:
        value, low, high = (f"{x:.3f}".replace("-", "−") for x in (gap.value, gap.low, gap.high))
        sign = "+" if gap.value > 0 else ""
        assert f"{' '.join(gap.method.split())} − plain {sign}{value} {low} to {high}" in differences
    assert "bootstrap over groups (50 replicates)" in differences


def test_cases_that_changed_most_both_ways(text):
    words = section(text, "against-1")
    gains, losses = words.split("Largest gains")[1].split("Largest losses")
    assert [name for name in re.findall(r"case-\d\d", gains)] == ["case-04", "case-05"]
    assert [name for name in re.findall(r"case-\d\d", losses)] == ["case-08", "case-10"]
    assert "Of 15 pairs 2 are better, 2 worse" in words
    change = re.search(r"case-04 Dice ([\d.]+) → ([\d.]+)", words)
    assert float(change[2]) - float(change[1]) == pytest.approx(0.3, abs=0.002)


def test_pictures_are_those_of_the_two_methods(found, text):
    _, pictures = found
    first = re.search(r'<section aria-labelledby="against-1".*?</section>', text, re.DOTALL)[0]
    figure = next(f for f in re.findall(r"<figure>.*?</figure>", first, re.DOTALL) if "case-04" in f)
    assert figure.count(pictures["plain"][4].data_uri) == 2
    figure = next(f for f in re.findall(r"<figure>.*?</figure>", first, re.DOTALL) if "case-08" in f)
    assert figure.count("<image") == 1  # the other method's pictures end before it
    third = re.search(r'<section aria-labelledby="against-2".*?</section>', text, re.DOTALL)[0]
    assert third.count("<image") == 4


def test_untrusted_text_is_only_ever_text(text):
    page = Page(text)
    assert page.tags.count("script") == 1 and "<script>alert" not in text
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)) and text == text.encode().decode()


def test_same_tables_same_page(found, text):
    assert render_comparison(*found, title=HOSTILE, samples=50) == text


def test_several_seeds_are_paired_and_have_no_pictures(found):
    tables, pictures = found
    seeds = [dataclasses.replace(case, part=f"fold0-seed{s}") for s in (0, 1) for case in tables["plain"]]
    others = [dataclasses.replace(case, dice=min(case.dice + 0.1, 1.0)) for case in seeds]
    text = render_comparison({"a": seeds, "b": others}, {"a": pictures["plain"]}, samples=20)
    words = section(text, "against-1")
    assert "Of 30 pairs" in words and "case-15, fold0-seed0" in words and "<image" not in text


def test_what_cannot_be_compared(found):
    tables, _ = found
    with pytest.raises(ValueError, match="needs two methods"):
        render_comparison({"plain": tables["plain"]})
    with pytest.raises(InputError, match="not of the same cases"):
        render_comparison({"plain": tables["plain"], "fewer": tables["plain"][1:]}, samples=10)


def test_methods_without_outlines_or_anything():
    grades = [Case(f"{i}", f"{i}", malignant_truth=bool(i % 2), p_malignant=i / 10) for i in range(8)]
    text = render_comparison({"a": grades, "b": grades}, samples=10)
    assert "No case has a Dice with both methods." in section(text, "against-1")
    assert "Malignancy: AUROC" in section(text, "differences")
    bare = [Case("x", "g")]
    words = Page(render_comparison({"a": bare, "b": bare}, samples=10)).words
    assert "Nothing was measured." in words and "No measure is there for both" in words
    assert np.isnan(bare[0].dice)


def test_a_comparison_that_is_there_is_shown_and_not_computed_again(found, monkeypatch):
    """Its numbers, measures and margins; other methods, and differences to others, are left out."""
    tables, pictures = found
    tables = {name: [dataclasses.replace(case, iou=case.dice / 2) for case in cases] for name, cases in tables.items()}
    compared = compare(tables, measures=("dice", "iou"), margins={"dice": 0.05}, samples=50, notes=["A note."])
    monkeypatch.setattr("thyroid_jax.evaluate.report.comparison.compare", None)
    shown = {name: tables[name] for name in ("plain", "third")}
    text = render_comparison(shown, pictures, compared=compared)
    differences = section(text, "differences")
    (dice, iou) = (gap for gap in compared.gaps if gap.method == "third")
    assert f"third − plain {dice.value:+.3f}" in differences and f"third − plain {iou.value:+.3f}" in differences
    assert f"{dice.decision} (margin 0.05)" in differences and "A note." in differences
    assert "(50 replicates)" in differences and " ".join(HOSTILE.split()) not in section(text, "results")
    assert "IoU" in section(text, "results").split("more measures")[0]  # it was asked for
    with pytest.raises(ValueError, match="does not hold the methods other"):
        render_comparison(shown | {"other": tables["plain"]}, compared=compared)
    with pytest.raises(ValueError, match="samples are those of the comparison"):
        render_comparison(shown, compared=compared, samples=10)


def test_the_caption_counts_the_tests_that_p_is_adjusted_over(found):
    """Those of the whole comparison, also where a page shows a part of it: the adjusted p are of all of them."""
    tables, _ = found
    compared = compare(tables, measures=("dice",), samples=20)
    shown = {name: tables[name] for name in ("plain", "third")}
    assert compared.families == {"plain": 2}
    text = section(render_comparison(shown, compared=compared), "differences")
    assert "Holm's, over the 2 tests against plain." in text


def test_no_interval_is_said_so():
    one = [Case(f"{i}", "patient", dice=i / 10) for i in range(5)]
    text = render_comparison({"a": one, "b": one}, samples=10)
    assert "0.200 (no interval) · 5 cases" in section(text, "results") and "– to –" not in text
