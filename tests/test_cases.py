"""The per-case table survives a round trip, and a spoiled one is refused with every fault named."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.cases import COLUMNS, Case, grades, read_cases, write_cases

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
NUMBER = st.one_of(st.just(float("nan")), st.floats(allow_nan=False, allow_infinity=False))
PROBABILITY = st.floats(0, 1)


@st.composite
def tables(draw):
    names = draw(st.lists(TEXT, max_size=4, unique=True))
    case = st.builds(
        Case,
        case=TEXT,
        group=TEXT,
        dice=NUMBER,
        iou=NUMBER,
        hd95_px=NUMBER,
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


def test_layout(tmp_path):
    path = tmp_path / "cases.csv"
    write_cases(
        path,
        [
            Case(
                "a,b",
                "p1",
                0.1 + 0.2,
                0.5,
                predicted_area_px=3,
                grade_predicted="4a",
                probability={"3": 0.25, "4a": 0.75},
            )
        ],
    )
    head, row = path.read_text().splitlines()
    assert head == ",".join(COLUMNS) + ",prob_3,prob_4a"
    assert row == '"a,b",p1,0.30000000000000004,0.5,,3,,,4a,0.25,0.75'


def test_numpy_numbers_are_written_plainly(tmp_path):
    path = tmp_path / "cases.csv"
    write_cases(
        path,
        [
            Case(
                "x",
                "p",
                np.float64(0.5),
                np.float32(0.25),
                np.float32("nan"),
                np.int64(3),
                probability={"a": np.float32(1)},
            )
        ],
    )
    assert path.read_text().splitlines()[1] == "x,p,0.5,0.25,,3,,,,1.0"
    (case,) = read_cases(path)
    assert (case.dice, case.iou, case.predicted_area_px, case.probability) == (0.5, 0.25, 3, {"a": 1.0}) and np.isnan(
        case.hd95_px
    )


def test_two_scales_are_refused(tmp_path):
    mixed = [Case("a", "p", probability={"3": 1.0}), Case("b", "p", probability={"TR3": 1.0})]
    with pytest.raises(ValueError, match="different scales"):
        write_cases(tmp_path / "cases.csv", mixed)
    assert list(tmp_path.iterdir()) == []
    assert grades([]) == () and grades([Case("a", "p"), mixed[0]]) == ("3",)


def test_faults_are_named_all_at_once(tmp_path):
    path = tmp_path / "cases.csv"
    head = ",".join(COLUMNS) + ",prob_a,prob_b,remark"
    path.write_text(head + "\nx,p,good,0.5,1,2,3,a,a,1,0,\ny,p,0.5,0.5,1,2.5,3,a,a,1,,\nz,p\n")
    with pytest.raises(InputError) as raised:
        read_cases(path)
    message = str(raised.value)
    assert "cases.csv: 4 cells" in message and "row 4: 2 cells where the header has 12" in message
    assert (
        "row 2, dice: 'good'" in message
        and "row 3, predicted_area_px: '2.5'" in message
        and "row 3: 1 of 2 probabilities" in message
    )


@pytest.mark.parametrize(
    "content", [b"", b"case,group\nx,p\n", b"\xff\xfe\x00", b'case,"grou', ",".join([*COLUMNS, "dice"]).encode()]
)
def test_what_is_no_such_table_is_refused(tmp_path, content):
    path = tmp_path / "cases.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cases\.csv"):
        read_cases(path)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_cases(tmp_path / "cases.csv")
