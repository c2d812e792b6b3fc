"""The per-case table survives a round trip, and a spoiled one is refused with every fault named."""

import csv
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.cases import Case, columns, escape, grades, read_cases, unescape, write_cases

NAN = float("nan")
CHARACTERS = st.characters(exclude_categories=("Cs",))
# Any text, and often enough text that a spreadsheet would take for a formula.
TEXT = st.one_of(
    st.text(CHARACTERS, max_size=12),
    st.builds(str.__add__, st.text("=+-@\t\r\n '\";,", max_size=3), st.text(CHARACTERS, max_size=5)),
)
NUMBER = st.one_of(st.just(float("nan")), st.floats(allow_nan=False, allow_infinity=False))
PROBABILITY = st.floats(0, 1)
LENGTH = st.floats(0, allow_nan=False, allow_infinity=False)


@st.composite
def tables(draw):
    names = draw(st.lists(TEXT.filter(lambda name: name != "malignant"), max_size=4, unique=True))
    case = st.builds(
        Case,
        case=TEXT,
        group=TEXT,
        part=TEXT,
        dice=st.one_of(st.just(NAN), PROBABILITY),
        iou=st.one_of(st.just(NAN), PROBABILITY),
        hd95_px=st.one_of(st.just(NAN), LENGTH),
        hd95_mm=st.one_of(st.just(NAN), LENGTH),
        contrast_to_noise=NUMBER,
        predicted_area_px=st.one_of(st.none(), st.integers(0, 10**9)),
        reference_area_px=st.one_of(st.none(), st.integers(0, 10**9)),
        grade_truth=TEXT,
        grade_predicted=TEXT,
        probability=st.one_of(
            st.just({}),
            st.lists(PROBABILITY, min_size=len(names), max_size=len(names)).map(
                lambda values: dict(zip(names, values))
            ),
        ),
        malignant_truth=st.sampled_from([None, False, True]),
        p_malignant=st.one_of(st.just(float("nan")), PROBABILITY),
    )
    return draw(st.lists(case, max_size=5))


@settings(max_examples=60, deadline=None)
@given(tables())
def test_round_trip(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("cases") / "cases.csv"
    write_cases(path, table)
    # repr: NaN is not equal to itself, and -0.0 is to 0.0.
    assert [repr(case) for case in read_cases(path)] == [repr(case) for case in table]
    assert [file.name for file in path.parent.iterdir()] == ["cases.csv"]
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == columns(grades(table), table)
    for column, *cells in zip(header, *rows):
        if column in ("case", "group", "part", "grade_truth", "grade_predicted"):
            assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
        else:
            assert all(cell == "" or np.isfinite(float(cell)) for cell in cells)


def test_what_only_some_cases_have(tmp_path):
    path = tmp_path / "cases.csv"
    full = Case(
        "a",
        "p1",
        precision=0.5,
        nsd_1mm=0.25,
        guidance={"solidity": 0.5, "a.b": -1.0},
        target={"solidity": 0.75},
        reader_dice=(0.5, NAN, 0.25),
        reader_grades=("3", ""),
        about={"device": "=cmd", "margin": "ill-defined, lobulated"},
    )
    empty = Case("b", "p2")
    write_cases(path, [empty, full])
    head, first, second = path.read_text().splitlines()
    assert head.endswith(
        ",p_malignant,precision,nsd_1mm,guidance_solidity,guidance_a.b,target_solidity,reader0_dice,reader1_dice,"
        "reader2_dice,reader0_grade,reader1_grade,reader2_grade,about_device,about_margin"
    )
    assert first == "b,p2" + "," * (head.count(",") - 1)
    assert second.endswith(""",0.5,0.25,0.5,-1.0,0.75,0.5,,0.25,3,,,'=cmd,"ill-defined, lobulated\"""")
    back = dataclasses.replace(full, reader_grades=("3",))  # a missing grade at the end is not told from none
    assert [repr(case) for case in read_cases(path)] == [repr(empty), repr(back)]


def test_layout(tmp_path):
    path = tmp_path / "cases.csv"
    case = Case(
        "a,b",
        "p1",
        "test",
        dice=0.1 + 0.2,
        iou=0.5,
        hd95_mm=1.25,
        predicted_area_px=3,
        grade_predicted="4a",
        probability={"3": 0.25, "4a": 0.75},
        malignant_truth=True,
        p_malignant=0.5,
    )
    write_cases(path, [case])
    head, row = path.read_text().splitlines()
    assert head == (
        "case,group,part,dice,iou,hd95_px,hd95_mm,predicted_area_px,reference_area_px,grade_truth,grade_predicted,"
        "p_3,p_4a,malignant_truth,p_malignant"
    )
    assert row == '"a,b",p1,test,0.30000000000000004,0.5,,1.25,3,,,4a,0.25,0.75,1,0.5'


def test_numpy_numbers_are_written_plainly(tmp_path):
    path = tmp_path / "cases.csv"
    case = Case(
        "x",
        "p",
        dice=np.float64(0.5),
        iou=np.float32(0.25),
        hd95_px=np.float32("nan"),
        predicted_area_px=np.int64(3),
        probability={"a": np.float32(1)},
        malignant_truth=np.bool_(False),
        p_malignant=np.float32(0.125),
    )
    write_cases(path, [case])
    assert path.read_text().splitlines()[1] == "x,p,,0.5,0.25,,,3,,,,1.0,0,0.125"
    (read,) = read_cases(path)
    assert (read.dice, read.iou, read.predicted_area_px, read.probability) == (0.5, 0.25, 3, {"a": 1.0})
    assert np.isnan(read.hd95_px) and read.malignant_truth is False and read.p_malignant == 0.125


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", " =1", "'=1", "＝1", "'", "''"]
)
def test_formulas_are_written_as_text(tmp_path, text):
    path = tmp_path / "cases.csv"
    case = Case(
        text, text, text, contrast_to_noise=-0.5, grade_truth=text, grade_predicted=text, probability={text: 1.0}
    )
    write_cases(path, [case])
    with path.open(newline="", encoding="utf-8") as file:
        header, row = csv.reader(file)
    cells = dict(zip(header, row))
    for column in ("case", "group", "part", "grade_truth", "grade_predicted"):
        assert cells[column] == "'" + text
    assert cells["contrast_to_noise"] == "-0.5" and cells["p_" + text] == "1.0" and header[0] == "case"
    assert repr(read_cases(path)) == repr([case])


def test_cells_are_not_parted_at_semicolons(tmp_path):
    path = tmp_path / "cases.csv"
    write_cases(path, [Case("a;=1+1", "b\t=1+1")])
    assert path.read_text().splitlines()[1].startswith('"a;=1+1","b\t=1+1",')


@given(TEXT)
def test_escaping_is_undone_and_leaves_plain_text_alone(text):
    assert unescape(escape(text)) == text
    assert not escape(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    if text[:1].isalnum():
        assert escape(text) == text


def test_a_grade_must_not_take_the_column_of_malignancy():
    with pytest.raises(ValueError, match="a grade named 'malignant'"):
        Case("x", "p", probability={"benign": 0.5, "malignant": 0.5})
    assert len(set(columns(["benign", "malign"]))) == len(columns(["benign", "malign"]))


@pytest.mark.parametrize("value", [{"malignant_truth": 2}, {"malignant_truth": float("nan")}, {"p_malignant": 1.5}])
def test_ill_malignancy_is_refused(value):
    with pytest.raises(ValueError, match="'x'"):
        Case("x", "p", **value)


def test_two_scales_are_refused(tmp_path):
    mixed = [Case("a", "p", probability={"3": 1.0}), Case("b", "p", probability={"TR3": 1.0})]
    with pytest.raises(ValueError, match="different scales"):
        write_cases(tmp_path / "cases.csv", mixed)
    assert list(tmp_path.iterdir()) == []
    assert grades([]) == () and grades([Case("a", "p"), mixed[0]]) == ("3",)


def test_faults_are_named_all_at_once(tmp_path):
    path = tmp_path / "cases.csv"
    head = ",".join([*columns(["a", "b"]), "remark"])
    rows = [
        "x,p,,good,0.5,1,,2,3,a,a,1,0,,,",
        "y,p,,0.5,0.5,1,,2.5,-3,a,a,1,,2,1.5,",
        "z,p",
        "v,p,,0.5,0.5,1,,2,3,a,a,nan,0,,,",
    ]
    path.write_text("\n".join([head, *rows]) + "\n")
    with pytest.raises(InputError) as raised:
        read_cases(path)
    message = str(raised.value)
    for fault in (
        "cases.csv: 8 cells",
        "row 2, dice: 'good' is not a number from 0 to 1",
        "row 3, predicted_area_px: '2.5' is not a whole number",
        "row 3, reference_area_px: '-3' is not a whole number",
        "row 3: 1 of 2 probabilities",
        "row 3, malignant_truth: '2' is not 0 or 1",
        "row 3, p_malignant: '1.5' is not a number from 0 to 1",
        "row 4: 2 cells where the header has 16",
        "row 5, p_a: 'nan' is not a finite number",
    ):
        assert fault in message, fault


@pytest.mark.parametrize("column, text, expected", [
    ("dice", "87.3", "a number from 0 to 1"), ("iou", "-0.1", "a number from 0 to 1"),
    ("dice", "inf", "a number from 0 to 1"), ("hd95_px", "-1", "a finite number of 0 or more"),
    ("hd95_mm", "inf", "a finite number of 0 or more"), ("recall", "1.5", "a number from 0 to 1"),
    ("assd_mm", "-2", "a finite number of 0 or more"), ("reader0_dice", "90", "a number from 0 to 1"),
])  # fmt: skip
def test_measures_outside_their_range_are_refused(tmp_path, column, text, expected):
    """Dice in percent, for example: pooled with another table it would be compared with values from 0 to 1."""
    path = tmp_path / "cases.csv"
    row = dict.fromkeys([*columns(()), column], "") | {"case": "x", "group": "p", column: text}
    path.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    with pytest.raises(InputError, match=f"row 2, {column}: '{text}' is not {expected}"):
        read_cases(path)
    path.write_text(",".join(row) + "\n" + ",".join((row | {column: "nan"}).values()) + "\n")
    assert np.isnan(read_cases(path)[0].dice)


def test_columns_of_readers_that_are_missing_or_of_something_else(tmp_path):
    path = tmp_path / "cases.csv"
    head = ",".join(columns(()))
    path.write_text(f"{head},reader1_dice,reader0_grade,readers_dice,reader_x_dice\nx,p,,1,1,0,0,1,1,,,,,0.5,2,7,8\n")
    (case,) = read_cases(path)
    assert repr(case.reader_dice) == "(nan, 0.5)" and case.reader_grades == ("2",)


def test_whole_numbers_that_pandas_wrote_beside_a_gap(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text(",".join(columns(())) + "\nx,p,,1,1,0,0,12.0,12.0,,,1.0,0.75\n")
    (case,) = read_cases(path)
    assert (case.predicted_area_px, case.malignant_truth) == (12, True)
    assert isinstance(case.predicted_area_px, int) and isinstance(case.malignant_truth, bool)


def test_older_tables_have_to_be_written_again(tmp_path):
    path = tmp_path / "cases.csv"
    for head in ("case,group,dice,iou,hd95_px,prob_a", ",".join([*columns(["a"]), "prob_a"])):
        path.write_text(head + "\n")
        with pytest.raises(InputError, match=r"prob_<grade>.*Write the table again"):
            read_cases(path)


@pytest.mark.parametrize(
    "content", [b"", b"case,group\nx,p\n", b"\xff\xfe\x00", b'case,"grou', ",".join([*columns(()), "dice"]).encode()]
)
def test_what_is_no_such_table_is_refused(tmp_path, content):
    path = tmp_path / "cases.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cases\.csv"):
        read_cases(path)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_cases(tmp_path / "cases.csv")
