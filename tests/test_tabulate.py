"""The tables of a comparison: every number in its place, undefined ones said so, hostile names harmless in LaTeX."""

import math
import shutil
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thyroid_jax.evaluate import tabulate
from thyroid_jax.evaluate.measures import MEASURES
from thyroid_jax.evaluate.tabulate import Comparison, Gap, Method
from thyroid_jax.evaluate.tabulate.content import LABELS, MORE_LABELS

NAN = math.nan


def entry(value=0.5, low=0.4, high=0.6, n=20, undefined=0, groups=10, lost=0):
    names = ("value", "low", "high", "n", "undefined", "groups", "replicates", "replicates_undefined")
    return dict(zip(names, (value, low, high, n, undefined, groups, 100, lost)))


GAP = Gap(
    **{"method": "b", "against": "a", "measure": "dice", "value": 0.1, "low": -0.05, "high": 0.25},
    **{"resampled": "groups", "pairs": 19, "left_out": 1, "groups": 10, "undefined": 2},
    **{"p": 0.01234, "exact": False, "adjusted": 0.02468},
)
FOUND = Comparison(
    methods=(Method("a", 20, 20, 10, (0, 1), (0,)), Method("b", 20, 20, 10, (0, 1), (0,))),
    summaries={
        "a": {"dice": entry(), "hd95_px": entry(3, 2, 4, n=18, undefined=2), "grade_3_f1": entry(0.2, 0.1, 0.3)},
        "b": {"dice": entry(0.6, NAN, NAN, groups=1), "macro_auroc": entry(NAN, NAN, NAN, n=0, undefined=20)},
    },
    gaps=(GAP, GAP._replace(measure="macro_auroc", value=NAN, low=NAN, high=NAN, p=NAN, adjusted=NAN)),
    measures=("dice", "macro_auroc"),
    samples=100,
    permutations=500,
    notes=("Toys, test part.",),
)


def rows_of(text):
    """First cell -> the others, of every line of a Markdown table."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [(cells[0], cells[1:]) for cells in ([cell.strip() for cell in line] for line in lines)]


def test_markdown_holds_values_differences_and_p_and_says_what_is_undefined():
    text = tabulate.markdown(FOUND)
    values, differences, tests = (dict(rows_of(block)) for block in text.split("\n\n")[:3])
    assert values["measure"] == ["predictions", "groups", "a", "b"]
    assert values["dice"] == ["20", "1 to 10", "0.500 (0.400 to 0.600)", "0.600 (no interval)"]
    assert values["hd95_px"][0] == "18" and values["hd95_px"][2:] == [
        "3.000 (2.000 to 4.000)"
    ]  # the last cell is empty
    assert values["macro_auroc"] == ["0", "10", "", "undefined"]
    assert "grade_3_f1" not in values  # only in the CSV table
    assert differences["difference to a"] == ["pairs", "groups", "b"]
    assert differences["dice"] == ["19", "10", "+0.100 (-0.050 to +0.250)"]
    assert differences["macro_auroc"][2] == "undefined" == tests["macro_auroc"][2]
    assert tests["dice"][2] == "0.0123 (0.0247)"


def test_the_caption_states_counts_intervals_test_and_family():
    text = " ".join(tabulate.caption(FOUND))
    for said in (
        "Toys, test part. Each method: 20 predictions of 20 images and 10 groups, folds 0 1, seeds 0.",
        "by a bootstrap over groups (100 replicates)",
        "resample groups (expanded percentile bootstrap).",
        "exchanges two methods on whole groups (500 permutations).",
        "Adjusted p: Holm's, over the 1 test against a.",  # the undefined one is no test
    ):
        assert said in text, said
    assert "seeds show little" not in text and "margin" not in text


def test_the_caption_says_which_intervals_resample_seeds_and_which_do_not():
    crossed = GAP._replace(resampled="groups and seeds")
    both = replace(FOUND, gaps=(crossed, crossed._replace(measure="hd95_px", resampled="groups", exact=True)))
    text = " ".join(tabulate.caption(both))
    assert "groups and seeds (crossed percentile bootstrap" in text and "all where there are fewer" in text
    assert "groups alone, where not every group has rows of every seed: b in HD95 (px)." in text
    assert "It is about other groups with these seeds" in text
    alone = " ".join(tabulate.caption(replace(both, gaps=(crossed, GAP._replace(method="c")))))
    assert "of every seed: c." in alone


def test_methods_of_different_counts_are_said_one_by_one():
    different = replace(FOUND, methods=(FOUND.methods[0], Method("b", 10, 10, 5, (), ())))
    text = tabulate.caption(different)
    assert text[1:3] == [
        "a: 20 predictions of 20 images and 10 groups, folds 0 1, seeds 0.",
        "b: 10 predictions of 10 images and 5 groups.",
    ]


@pytest.mark.parametrize("change, cell", [
    ({"decision": "superior", "margin_p": 0.0004}, "superior (0.02, 0.0004)"),
    ({"decision": "non-inferior"}, "non-inferior (0.02)"),
    ({"decision": "non-inferior", "worse": True, "margin_p": 0.00001}, "non-inferior, though worse (0.02, <0.0001)"),
    ({"decision": "inferior", "worse": True}, "inferior (0.02)"),
    ({"decision": "not shown"}, "not shown (0.02)"),
])  # fmt: skip
def test_non_inferiority_is_a_table_of_its_own_with_the_margin(change, cell):
    decided = replace(FOUND, gaps=(GAP._replace(margin=0.02, **change), FOUND.gaps[1]))
    text = tabulate.markdown(decided)
    assert dict(rows_of(text.split("\n\n")[3])) == {
        "non-inferiority (margin, p)": ["pairs", "groups", "b"],
        "dice": ["19", "10", cell],
    }
    assert "margins, chosen by the user: Dice 0.02; decided by the interval" in text
    assert cell.split(" (")[0] in tabulate.latex(decided)


def test_a_comparison_of_one_method_has_no_differences():
    alone = replace(FOUND, methods=FOUND.methods[:1], summaries={"a": FOUND.summaries["a"]}, gaps=())
    assert "difference" not in tabulate.markdown(alone).lower() and "Difference" not in tabulate.latex(alone)


@pytest.mark.parametrize("p, text", [
    (1.0, "1.0000"), (0.00006, "0.0001"), (0.00005, "0.0001"), (0.00004, "<0.0001"), (0.0, "<0.0001"), (NAN, ""),
])  # fmt: skip
def test_no_p_is_printed_as_zero(p, text):
    assert tabulate.p_value(p) == text


def test_the_csv_table_has_every_measure_of_every_method(tmp_path):
    import csv

    tabulate.write_tables(tmp_path, FOUND)
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["measure"]) for row in rows] == [
        *(("a", "dice"), ("a", "hd95_px"), ("a", "grade_3_f1"), ("b", "dice"), ("b", "macro_auroc"))
    ]
    first, _, _, second, undefined = rows
    assert first["difference"] == first["p"] == first["tests"] == "" and first["value"] == "0.5"
    expected = {
        "difference": 0.1,
        "difference_low": -0.05,
        "difference_high": 0.25,
        "p": 0.01234,
        "p_adjusted": 0.02468,
    }
    assert {name: float(second[name]) for name in expected} == expected
    assert (second["pairs"], second["pairs_left_out"], second["pairs_groups"], second["tests"]) == (
        "19",
        "1",
        "10",
        "1",
    )
    assert (second["images"], second["folds"], second["seeds"], second["against"]) == ("20", "2", "1", "a")
    assert undefined["value"] == undefined["difference"] == undefined["p"] == "" and undefined["undefined"] == "20"
    assert (tmp_path / "table.md").read_text() == tabulate.markdown(FOUND) + "\n"
    assert (tmp_path / "table.tex").read_text() == tabulate.latex(FOUND)


# --- LaTeX ------------------------------------------------------------------------------------------------------------


def test_latex_has_a_row_of_each_method_and_a_column_of_each_compared_measure():
    text = tabulate.latex(FOUND)
    lines = text.splitlines()
    assert r" & Dice & Macro AUROC \\" in lines and r"\begin{tabular}{lrr}" in lines
    place = lines.index(r"a & 0.500 &  \\")
    assert lines[place + 1] == r" & {\scriptsize (0.400 to 0.600)} &  \\"
    assert lines[place + 2] == r"b & 0.600 & undefined \\"
    place = lines.index(r"\multicolumn{3}{l}{Difference to a} \\")
    assert lines[place + 1] == r"b & $+$0.100 & undefined \\"
    assert lines[place + 2] == r" & {\scriptsize ($-$0.050 to $+$0.250)} &  \\"
    assert lines[place + 3] == r" & {\scriptsize p 0.0123, adj. 0.0247} &  \\"


HOSTILE = r"a_b^c & 50 % $x$ #1 {y} ~ \input{z} <|> " + '"' + "\nnew"


def test_no_character_keeps_its_meaning_in_latex():
    escaped = tabulate.escape_latex(HOSTILE)
    assert escaped == (
        r"a\_b\textasciicircum{}c \& 50 \% \$x\$ \#1 \{y\} \textasciitilde{} \textbackslash{}input\{z\} "
        r"$<$$|$$>$ '' new"
    )


@pytest.mark.parametrize(("name", "escaped"), [("[5mm] ours", "{[}5mm] ours"), ("*ours", "{*}ours")])
def test_a_name_is_not_read_as_the_option_of_the_line_before(name, escaped):
    assert tabulate.escape_latex(name) == escaped


@given(st.text(alphabet="ab&%$#_{}~^\\<>|\"'\n +-", max_size=30))
def test_escaped_text_has_balanced_braces_and_no_bare_sign(text):
    escaped = tabulate.escape_latex(text)
    bare = escaped
    for known in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}", "$<$", "$>$", "$|$"):
        bare = bare.replace(known, "")
    for sign in "&%$#_{}":
        bare = bare.replace(f"\\{sign}", "")
    assert not set(bare) & set('&%$#_{}~^\\<>|"\n')


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_with_hostile_names(tmp_path):
    found = replace(
        FOUND,
        methods=(FOUND.methods[0]._replace(name=HOSTILE), FOUND.methods[1]),
        summaries={HOSTILE: FOUND.summaries["a"], "b": FOUND.summaries["b"]},
        gaps=tuple(gap._replace(against=HOSTILE) for gap in FOUND.gaps),
        notes=(HOSTILE,),
    )
    (tmp_path / "table.tex").write_text(tabulate.latex(found))
    (tmp_path / "page.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table.tex}\end{document}"
    )
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "page.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:].decode(errors="replace")


def test_every_measure_that_can_be_compared_has_a_label():
    assert set(MEASURES) == set(LABELS) | set(MORE_LABELS) and not set(LABELS) & set(MORE_LABELS)
    assert tabulate.label_of("no_such_measure") == "No such measure"
    assert tabulate.label_of("at_or_above_4a_auroc") == "At or above 4a AUROC"
    assert tabulate.label_of("grade_5_sensitivity_at_specificity_5") == "Grade 5 sensitivity at specificity 0.05"


def test_it_is_said_which_intervals_are_delongs_and_only_of_what_is_shown(tmp_path):
    areas = {"malignant_auroc": entry() | {"replicates": 0}, "at_or_above_4a_auroc": entry() | {"replicates": 0}}
    found = replace(FOUND, summaries={"a": FOUND.summaries["a"] | areas, "b": FOUND.summaries["b"]})
    assert "The interval of Malignancy AUROC is DeLong's over groups (logit)" in " ".join(tabulate.caption(found))
    asked = replace(found, measures=("dice", "at_or_above_4a_auroc"))
    assert "of Malignancy AUROC and of At or above 4a AUROC is DeLong's" in " ".join(tabulate.caption(asked))
    assert "DeLong" not in " ".join(tabulate.caption(FOUND))
    kinds = {(row["method"], row["measure"]): row["interval"] for row in tabulate.csv_rows(found)}
    assert kinds["a", "malignant_auroc"] == "delong" and kinds["a", "dice"] == "bootstrap"
    assert kinds["b", "dice"] is None  # one group


def test_a_pipe_in_a_name_stays_in_its_cell():
    renamed = replace(FOUND, methods=(FOUND.methods[0]._replace(name="a|b\nc"), FOUND.methods[1]))
    renamed = replace(renamed, summaries={"a|b\nc": FOUND.summaries["a"], "b": FOUND.summaries["b"]}, gaps=())
    assert tabulate.markdown(renamed).splitlines()[0] == r"| measure | predictions | groups | a\|b c | b |"
