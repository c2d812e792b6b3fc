"""The table of a folder: which columns are taken, how rows find images, and what a cell may say."""

import math

import openpyxl
import pytest
from test_folder import add, command, plan, read, save, speckle, write

from thyroid_jax.errors import InputError


@pytest.fixture
def source(tmp_path):
    """Images a.png to d.png in a folder of images."""
    add(tmp_path, *(f"images/{name}.png" for name in "abcd"))
    return tmp_path


def columns(planned):
    return {role: column.name for role, column in planned.table.columns.items()}


@pytest.mark.parametrize(
    ("header", "role"),
    [
        *((name, "image") for name in ("Image", "File name", "ID", "case", "image_filename")),
        *((name, "group") for name in ("Patient", "patient-id", "PatientID", "Patient_No", "case_id")),
        *(
            (name, "grade")
            for name in ("TI-RADS", "tirads", "BI_RADS", "Category", "ACR", "TI-RADS level", "tirads_level")
        ),
        *((name, "malignant") for name in ("Malignancy", "pathology", "Diagnosis", "class", "Benign/Malignant")),
        *((name, "spacing") for name in ("spacing", "Pixel_size", "mm per pixel", "Pixel spacing (mm)")),
        *((name, "split") for name in ("Split", "set", "part")),
    ],
)
def test_columns_are_known_by_name(source, header, role):
    values = {"grade": "3", "malignant": "benign", "spacing": "0.1", "image": "a.png"}
    rows = [("a.png", values.get(role, "x"))] if role != "image" else [("a.png", "-")]
    names = ("name", header) if role != "image" else (header, "other")
    write(source, "t.csv", "\n".join([",".join(names), *(",".join(row) for row in rows)]))
    found = plan(source)
    assert columns(found)[role] == header and found.table.columns[role].guessed
    assert found.table.unused == ([] if role != "image" else ["other"])
    if role != "image":
        assert role not in columns(plan(source, columns={role: "none"}))


def test_all_labels(source):
    write(
        source,
        "t.tsv",
        "file\tpatient_id\ttirads\tdiagnosis\tspacing_row\tspacing column\tset\tshape\tage\n"
        "images/a.png\tP1\tTR2\tB\t0.1\t0.2\ttrain\toval\t50\n"
        "b\tP1\tTR4\tMalignant\t0.1\t0.1\ttest\t\t60\n"
        "C.PNG\tP2\t\t\t\t\ttest\tround\t\n",
    )
    found, notes, remarks = read(source, findings=("all",))
    assert notes.faults == [] and plan(source).card.grades == ("TR2", "TR4")
    a, b, c, d = (found[name] for name in "abcd")
    assert [record.group for record in (a, b, c, d)] == ["P1", "P1", "P2", "d"]
    assert [record.grade for record in (a, b, c, d)] == [0, 1, None, None]
    assert [record.malignant for record in (a, b, c, d)] == [False, True, None, None]
    assert a.spacing == (0.1, 0.2) and all(map(math.isnan, c.spacing))
    assert [record.official_test for record in (a, b, c, d)] == [False, True, True, False]
    assert [record.descriptors for record in (a, b, c, d)] == [{"shape": "oval"}, {}, {"shape": "round"}, {}]
    assert plan(source, findings=("all",)).table.unused == ["age"]
    assert read(source, findings=("age",))[0]["a"].descriptors == {"age": "50"}
    assert remarks["images without a row of the table"] == ["images/d.png"]


def test_an_excel_table_beside_other_files(source):
    book = openpyxl.Workbook()
    for row in (("Image", "BIRADS", "Pixel_size"), ("a", 3, 0.01), ("b", "4a", 0.02), ("c", 5.0, None)):
        book.active.append(row)
    book.save(source / "labels.xlsx")
    found, notes, _ = read(source, spacing_unit="cm")
    assert notes.faults == [] and [found[name].grade for name in "abcd"] == [0, 1, 2, None]
    assert found["a"].spacing == pytest.approx((0.1, 0.1))
    _, notes, _ = read(source)
    assert notes.faults == [] or "not plausible" in notes.faults[0]
    assert len(notes.faults) == 1 and "--spacing-unit" in notes.faults[0]
    assert read(source, columns={"spacing": "none"})[1].faults == []


def test_several_tables(source):
    write(source, "a.csv", "image,grade\na,1\n")
    write(source, "b.csv", "image,grade\na,2\n")
    with pytest.raises(InputError, match=r"2 tables \(a.csv, b.csv\).*--table"):
        plan(source)
    assert plan(source, table=source / "b.csv").card.grades == ("2",)
    assert plan(source, ignore=("a.csv",)).table.file == "b.csv"
    assert plan(source, ignore=("*.csv",)).table.file == plan(source, columns={"image": "none"}).table.file == ""


def test_how_rows_find_images(tmp_path):
    add(tmp_path, "images/a.png", "images/A.png", "train/007.png", "test/b.png", "images/c.nii.png", "test/d.png")
    cells = ("A", "a.jpg", "7", "train/b.png", "data/images/c.nii.png", r"test\d.png", "zz")
    write(tmp_path, "t.csv", "image,grade\n" + "".join(f"{cell},{n}\n" for n, cell in enumerate(cells, 1)))
    found, notes, _ = read(tmp_path)
    assert notes.faults == []
    grades = {case: record.grade for case, record in found.items()}
    assert grades == {"A": 0, "a": 1, "train/007": 2, "test/b": None, "c.nii": 3, "test/d": 4}
    assert [what for what, _ in notes.dropped] == ["row 5 of t.csv", "row 8 of t.csv"]
    add(tmp_path, "train/d.png")
    write(tmp_path, "t.csv", "image,grade\nd,1\ntrain/d,2\n")
    _, notes, _ = read(tmp_path)
    assert len(notes.faults) == 1
    assert "t.csv: row 2, image: 'd' may be test/d.png, train/d.png; write the folder" in notes.faults[0]


def test_the_image_column_is_the_one_that_names_images(source):
    write(source, "t.csv", "id,name,case\n1,a,x\n2,b,x\n")
    assert columns(plan(source)) == {"image": "name", "group": "case"}
    write(source, "t.csv", "a,1\nb,2\n")
    with pytest.raises(
        InputError, match=r"t.csv: no column names the images. Columns: a, 1. .*images/a.png.*first row"
    ):
        plan(source)
    write(source, "t.csv", "scan,grade\na,2\n")
    assert columns(plan(source, columns={"image": "SCAN"}))["image"] == "scan"
    write(source, "t.csv", "image,grade\nzz,2\n")
    with pytest.raises(InputError, match=r"no column names the images"):
        plan(source)
    with pytest.raises(InputError, match=r"no row names an image. image holds 'zz'"):
        plan(source, columns={"image": "image"})
    with pytest.raises(InputError, match="--grade-column nix: no such single column"):
        plan(source, columns={"grade": "nix"})


@pytest.mark.parametrize("zeros", ["000", ""])
def test_a_column_of_files_comes_before_one_of_running_numbers(tmp_path, zeros):
    """Row 4 has a slip, and the running numbers have none: they name other images."""
    add(tmp_path, *(f"{number:04d}.png" for number in range(1, 6)))
    files = [f"{zeros}{name}.png" for name in ("3", "1", "5", "4 copy", "2")]
    write(tmp_path, "t.csv", "id,file,tirads\n" + "".join(f"{n},{file},{n}\n" for n, file in enumerate(files, 1)))
    assert columns(plan(tmp_path))["image"] == "file"
    found, notes, _ = read(tmp_path)
    assert {case: record.grade for case, record in found.items()} == dict(
        zip(("0003", "0001", "0005", "0004", "0002"), (0, 1, 2, None, 3))
    )
    assert [what for what, _ in notes.dropped] == ["row 5 of t.csv"]


def test_an_empty_column_is_not_taken_before_a_filled_one(source):
    write(
        source,
        "t.csv",
        "image,patient,patient_id,malignancy,pathology\na,,P1,,benign\nb,,P1,,malignant\nc,,P2,,\nd,,P2,,b\n",
    )
    found, _, _ = read(source)
    assert [found[name].group for name in "abcd"] == ["P1", "P1", "P2", "P2"]
    assert [found[name].malignant for name in "abcd"] == [False, True, None, False]


@pytest.mark.parametrize(
    ("cells", "truths"),
    [
        (("0", "1", "", "1"), (False, True, None, True)),
        (("benign", "MALIGNANT", "normal", "n/a"), (False, True, None, None)),
        (("b", "M", "?", "unknown"), (False, True, None, None)),
        (("no", "Yes", "none", "no"), (False, True, None, False)),
        (("False", "TRUE", "-", "nan"), (False, True, None, None)),
    ],
)
def test_words_for_malignant(source, cells, truths):
    write(source, "t.csv", "image,malignant\n" + "".join(f"{n},{cell}\n" for n, cell in zip("abcd", cells)))
    found, notes, _ = read(source)
    assert notes.faults == [] and tuple(found[name].malignant for name in "abcd") == truths


def test_the_column_of_malignancy_is_one_that_can_be_read(source):
    write(source, "t.csv", "image,diagnosis,classification\na,fibroma,benign\nb,cancer,malignant\n")
    assert columns(plan(source))["malignant"] == "classification"
    write(source, "t.csv", "image,diagnosis\na,fibroma\nb,cancer\n")
    _, notes, _ = read(source)
    assert len(notes.faults) == 2 and "row 2, diagnosis: 'fibroma' must be benign or malignant" in notes.faults[0]
    assert read(source, missing=("fibroma", "cancer"))[1].faults == []


def test_folders_and_table_must_agree(tmp_path):
    for number, name in enumerate(("benign/a.png", "malignant/b.png", "test/c.png", "normal/d.png", "benign/e.png")):
        save(tmp_path / name, speckle(number))
    write(tmp_path, "t.csv", "image,malignant,split\na,1,\nb,1,\nc,0,train\nd,0,\ne,normal,\n")
    _, notes, _ = read(tmp_path)
    assert len(notes.faults) == 4
    assert "t.csv: row 2, malignant: disagrees with the folder of benign/a.png" in notes.faults[0]
    assert sum(f"row {row}, malignant: disagrees" in fault for row in (5, 6) for fault in notes.faults) == 2
    assert any("t.csv: row 4, split: 'train', but test/c.png is in a folder of test" in text for text in notes.faults)


def grades_of(source, *texts, **options):
    write(source, "t.csv", "image,grade\n" + "".join(f"{name},{text}\n" for name, text in zip("abcd", texts)))
    return plan(source, **options)


@pytest.mark.parametrize(
    ("texts", "grades"),
    [
        (("6", "2", "4a", "3"), ("2", "3", "4a", "6")),
        (("ACR-TR4", "acr tr5", "ACR TR3", "TR4"), ("TR3", "TR4", "TR5")),
        (("BI-RADS 4a", "BIRADS 5", "birads 4A", ""), ("4a", "5")),
        (("4C", "4a", "4b", "5"), ("4a", "4b", "4c", "5")),
        (("TR5", "tr1", "TR3", "TR1"), ("TR1", "TR3", "TR5")),
        (("BI-RADS 4a", "BI-RADS 3", "BI-RADS 5", ""), ("3", "4a", "5")),
        (("3.0", "4.0", "", "3"), ("3", "4")),
        (("0", "1", "", ""), ("0", "1")),
    ],
)
def test_the_order_of_numbers_is_natural(source, texts, grades):
    found = grades_of(source, *texts)
    assert found.layout.faults == [] and found.card.grades == grades


@pytest.mark.parametrize("texts", [("I", "II", "IV", "V"), ("low", "high"), ("TR1", "2"), ("0", "3", "4"), ("A", "B")])
def test_an_order_that_is_not_known_is_asked_for(source, texts):
    found = grades_of(source, *texts)
    assert found.card.grades == () and len(found.layout.faults) == 1
    assert found.layout.faults[0].startswith("t.csv: row ") and "--grades A,B,C" in found.layout.faults[0]
    given = grades_of(source, *texts, grades=texts)
    assert given.layout.faults == [] and given.card.grades == texts
    assert [item.grade for item in given.items][: len(texts)] == list(range(len(texts)))


def test_grades_outside_the_list(source):
    found = grades_of(source, "2", "7", "4A", "x", grades=("4a", "2"))
    assert [item.grade for item in found.items] == [1, None, 0, None]
    assert [fault.split(":")[1] for fault in found.layout.faults] == [" row 3, grade", " row 5, grade"]
    assert grades_of(source, "2", "7", "4A", "x", grades=("4a", "2"), missing=("7", "x")).layout.faults == []


def test_grades_of_readers(source):
    rows = ("a,2,3,3", "b,2,3,4", "c,2,,", "d,,,")
    write(source, "t.csv", "image,grade_r1,tirads_reader2,grade_reader3\n" + "\n".join(rows))
    found, notes, _ = read(source)
    assert notes.faults == [] and plan(source).card.grades == ("2", "3", "4")
    assert [found[name].reader_grades for name in "abcd"] == [(0, 1, 1), (0, 1, 2), (0,), ()]
    assert [found[name].grade for name in "abcd"] == [1, None, 0, None]
    assert "more than half of the readers" in plan(source).card.labels
    assert plan(source, columns={"grade": "none"}).card.grades == ()
    write(source, "t.csv", "image,grade_r1,tirads_r1\na,2,3\n")
    with pytest.raises(InputError, match="columns grade_r1 and tirads_r1 are both grades of reader 1"):
        plan(source)


def test_broken_rows_and_columns(source):
    write(source, "t.csv", "image,grade,grade\na,1,2\nb,1\n")
    found = plan(source)
    assert found.card.grades == () and "grade" not in columns(found)
    assert found.layout.faults == [
        "t.csv: row 3: 2 fields, but the header has 3; mend the row.",
        "t.csv: row 1: two columns are called grade, which may be the grade; rename one of them.",
    ]
    write(source, "t.csv", "image,grade,age,age\na,1,2,3\n")
    found = plan(source)
    assert found.layout.faults == [] and found.table.unused == ["age (twice)"] and found.card.grades == ("1",)
    write(source, "t.csv", "image,grade,tirads,tirads\na,1,2,3\n")
    assert plan(source).layout.faults == [] and plan(source).card.grades == ("1",)
    write(source, "t.csv", "image,grade,grade\na,1,2\n")
    assert plan(source, columns={"grade": "none"}).layout.faults == []
    with pytest.raises(InputError, match="no such single column"):
        plan(source, columns={"grade": "grade"})
    for content in (b"\xff\xfe\x00", "image,grade\nM\xfcller,1\n".encode("latin-1")):
        (source / "t.csv").write_bytes(content)
        with pytest.raises(InputError, match=r"not a CSV table in UTF-8 .*save it as CSV UTF-8"):
            plan(source)
    (source / "t.csv").unlink()
    write(source, "t.xlsx", "not a zip")
    with pytest.raises(InputError, match="not a whole Excel table"):
        plan(source)


def test_a_table_named_from_the_folder(source, capsys):
    write(source, "one.csv", "image,grade\na,1\n")
    write(source, "two.csv", "image,grade\na,2\n")
    out, error = command(capsys, "--name", "mine", "--source", source, "--table", "two.csv", "--dry-run")
    assert error == "" and "two.csv, 1 rows, 1 of them with an image" in out
    assert "(guessed from its name)" in out and "tables that are not read; --table FILE chooses one (1: one.csv)" in out
    missing = command(capsys, "--name", "mine", "--source", source, "--table", "three.csv", "--dry-run")[1]
    assert "three.csv: file: is not there" in missing


def test_cells_that_cannot_be_kept(source):
    write(source, "t.csv", f"image,text,patient\na,{'x' * 300},1\nb,x,a\x1b[2J\n")
    _, notes, _ = read(source, findings=("text",))
    assert len(notes.faults) == 2
    assert "row 2, text: must be a text of at most 200" in notes.faults[0] and "row 3, patient" in notes.faults[1]
    write(source, "t.csv", "image,te\x1bxt\na,1\n")
    with pytest.raises(InputError, match="row 1: names of columns are printed"):
        plan(source)


def test_an_image_without_patient_is_named(source):
    write(source, "t.csv", "image,patient\na,1\nb,\nc,1\nd,unknown\n")
    found, notes, remarks = read(source)
    assert notes.faults == [] and [found[name].group for name in "abcd"] == ["1", "b", "1", "d"]
    assert remarks["images without patient are groups of their own"] == ["images/b.png", "images/d.png"]


@pytest.mark.parametrize("text", ["-1", "99", "9", "_3", "4-"])
def test_texts_that_are_no_grade(source, text):
    """-1, 9 and 99 stand for "unknown" in many tables."""
    found = grades_of(source, text, "2", "3", "1")
    assert found.card.grades == () and len(found.layout.faults) == 1
    assert f"{text!r} (t.csv: row 2, grade)" in found.layout.faults[0] and "--grades A,B,C" in found.layout.faults[0]
    assert grades_of(source, text, "2", "3", "1", missing=(text,)).card.grades == ("1", "2", "3")


def test_all_texts_that_are_no_grade_are_named(source):
    (fault,) = grades_of(source, "FNA", "2", "follow up", "FNA").layout.faults
    assert "'fna' (t.csv: row 2, grade; t.csv: row 5, grade), 'follow up' (t.csv: row 4, grade)" in fault
    (fault,) = grades_of(source, "TR1", "2", "TR3", "").layout.faults
    assert "Of several kinds: '2' (t.csv: row 3, grade), 'tr1' (t.csv: row 2, grade)" in fault


@pytest.mark.parametrize(
    "name", ["TI-RADS raw score", "TIRADS risk", "ACR recommendation", "grade reason", "tirads_reader_anna"]
)
def test_columns_that_only_begin_like_grades_of_readers(source, name):
    write(source, "t.csv", f"image,category,{name}\na,2,5\nb,3,20\n")
    found = plan(source)
    assert found.table.readers == [] and found.card.grades == ("2", "3") and found.table.unused == [name]
    assert name in found.layout.remarks.found["unused columns look like labels; options like --grade-column take them"]


@pytest.mark.parametrize(
    ("text", "is_test"),
    [
        *((word, True) for word in ("Test set", "test1", "external test", "holdout", "Hold-out", "TEST", "testing")),
        *((word, False) for word in ("train", "Training set", "val", "validation", "3", "0.0", "", "n/a")),
    ],
)
def test_words_of_the_split_column(source, text, is_test):
    write(source, "t.csv", f"image,split\na,{text}\nb,train\n")
    found, notes, _ = read(source)
    assert notes.faults == [] and found["a"].official_test == is_test and not found["b"].official_test


@pytest.mark.parametrize("text", ["cohort A", "not for test", "train or test", "x"])
def test_a_split_that_is_not_known_is_a_fault(source, text):
    write(source, "t.csv", f"image,split\na,{text}\nb,train\n")
    _, notes, _ = read(source)
    assert (
        len(notes.faults) == 1
        and f"t.csv: row 2, split: {text.casefold()!r} must be a word for train" in notes.faults[0]
    )
    assert read(source, columns={"split": "none"})[1].faults == []


def test_the_words_of_the_split_column_are_printed(source, capsys):
    write(source, "t.csv", "image,fold\na,Test set\nb,1\nc,1\n")
    out, error = command(capsys, "--name", "mine", "--source", source, "--dry-run")
    assert error == "" and "split words 1: 2, test set: 1" in " ".join(out.split())
    assert "numbers of the split column mean nothing, least of all a test part (1: 1)" in out


def test_every_pixel_size_must_be_plausible(source):
    write(source, "t.csv", "image,spacing\na,0.08\nb,0.08\nc,0.008\nd,8\n")
    _, notes, _ = read(source)
    assert len(notes.faults) == 1 and "not plausible" in notes.faults[0] and "(row 4, 5)" in notes.faults[0]
    found, notes, remarks = read(source, spacing_unit="mm")
    assert notes.faults == [] and found["d"].spacing == (8.0, 8.0)
    assert remarks["pixel sizes are not from 0.02 to 1.0 mm"] == ["row 4", "row 5"]


def test_pixel_sizes_of_x_and_y_with_a_decimal_comma(source):
    write(source, "t.csv", "image;spacing_x;spacing_y\na;0,1;0,2\n")
    assert read(source)[0]["a"].spacing == (0.2, 0.1)


def test_an_unknown_patient_is_not_a_known_one(source):
    write(source, "t.csv", "image,patient\na,\nb,a\nc,P01\nd,p01\n")
    found, _, remarks = read(source)
    assert [found[name].group for name in "abcd"] == ["image a", "a", "P01", "p01"]
    assert remarks[ALIKE] == ["P01 = p01"]


ALIKE = "patients that differ only in capitals, spaces, leading zeros or .0 count as different"


def test_an_accent_written_in_two_ways_is_one_patient(source):
    write(source, "t.csv", "image,patient\na,M\u00fcller\nb,Mu\u0308ller\nc,x  1\nd,x 1\n")
    found, _, remarks = read(source)
    assert found["a"].group == found["b"].group == "M\u00fcller"
    assert remarks[ALIKE] == ["x  1 = x 1"]
    write(source, "t.csv", "image,patient\na,007\nb,7\nc,7.0\nd,8\n")
    assert read(source)[2][ALIKE] == ["007 = 7 = 7.0"]
    write(source, "t.csv", "image,patient\na,P1\nb,p01\nc,P10\nd,\uff3010\n")
    assert read(source)[2][ALIKE] == ["P1 = p01", "P10 = \uff3010"]


def test_a_patient_for_each_image_is_said(source):
    said = "no two images are of one patient: look whether what was taken for the patient is it"
    for patients in ("1234", "1233"):
        write(source, "t.csv", "file,case\n" + "".join(f"{name},{one}\n" for name, one in zip("abcd", patients)))
        assert (said in read(source)[2]) == (patients == "1234")
    assert said not in read(source, columns={"group": "none"})[2]


def test_a_group_is_not_a_patient(source):
    write(source, "t.csv", "image,group\na,control\nb,control\n")
    assert "group" not in columns(plan(source)) and plan(source).card.grouping == "image"
    assert columns(plan(source, columns={"group": "group"}))["group"] == "group"


def test_tables_in_folders_are_named(source):
    write(source, "meta/t.csv", "image,grade\na,1\n")
    found = plan(source)
    assert found.table.file == ""
    assert found.layout.remarks.found["tables that are not read; --table FILE chooses one"] == ["meta/t.csv"]
    found = plan(source, table=source / "meta/t.csv")
    assert found.card.grades == ("1",) and not any("not read" in text for text in found.layout.remarks.found)


@pytest.mark.parametrize(
    "content",
    [
        b"sep=;\r\nimage;grade\r\na.png;1\r\n",
        "image\tgrade\na\t1\n".encode("utf-16"),
        b'"image, name, or number";image;grade\nx,y,z;a;1\n',
        b'image,"TI-RADS\n(old, ACR)",grade,comment\na,5,1,"two\nlines"\n',
        b"image,grade\na,1\na,1\n",
        "image,grade\na,1\n\n".encode("utf-8-sig"),
    ],
)
def test_tables_as_programs_write_them(source, content):
    (source / "t.csv").write_bytes(content)
    found, notes, _ = read(source)
    assert notes.faults == [] and found["a"].grade == 0 and plan(source).card.grades == ("1",)


def test_a_line_break_in_a_used_cell_is_a_fault(source):
    write(source, "t.csv", 'image,patient\na,"P\n1"\n')
    assert "row 2, patient: must be a text of at most 200 printed" in read(source)[1].faults[0]


def workbook(path, **sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)


def test_a_sheet_is_chosen(source):
    workbook(source / "t.xlsx", README=[("This is a study",)], data=[("image", "grade"), ("a", 3)])
    (source / "~$t.xlsx").write_bytes(b"lock")
    with pytest.raises(InputError, match="the sheet README is read, others are data; --sheet NAME chooses"):
        plan(source)
    found = plan(source, sheet="data")
    assert found.card.grades == ("3",)
    assert found.layout.remarks.found["the sheet data is read, others are README; --sheet NAME chooses"] == ["t.xlsx"]
    with pytest.raises(InputError, match="sheet nix: is not there; the table has README, data"):
        plan(source, sheet="nix")
    (source / "t.xlsx").unlink()
    write(source, "t.csv", "image,grade\na,3\n")
    with pytest.raises(InputError, match="sheet data: a CSV table has no sheets"):
        plan(source, sheet="data")


def test_wide_and_long_excel_tables(source):
    wide = [("image", *(f"f{number}" for number in range(254)), "grade"), ("a", *[1] * 254, 4)]
    long = [("image", "grade"), ("a", 4), *((f"z{number}", 4) for number in range(4200))]
    for rows in (wide, long):
        workbook(source / "t.xlsx", data=rows)
        found = plan(source)
        assert found.card.grades == ("4",) and found.table.rows == len(rows) - 1
    workbook(
        source / "t.xlsx", data=[("image", *(f"f{number}" for number in range(255)), "grade"), ("a", *[1] * 255, 4)]
    )
    with pytest.raises(InputError, match="columns: the first sheet has more than 256"):
        plan(source)


def test_a_formula_is_no_label(source):
    """Each row has its own formula: as text, each image would be a patient of its own."""
    array = openpyxl.worksheet.formula.ArrayFormula
    patients = ("P1", "=LEFT(A3,1)", array("B4", "=LEFT(A4,1)"), array("B5", "=LEFT(A5,1)"))
    workbook(source / "t.xlsx", data=[("image", "patient"), *zip("abcd", patients)])
    faults = read(source)[1].faults
    assert [fault.partition(" is a formula")[0] for fault in faults] == [
        "t.xlsx: row 3, patient: '=LEFT(A3,1)'",
        "t.xlsx: row 4, patient: '=LEFT(A4,1)'",
        "t.xlsx: row 5, patient: '=LEFT(A5,1)'",
    ]
    assert read(source, columns={"group": "none"})[1].faults == []


def test_merged_cells_of_labels_are_faults(source):
    """Excel keeps the value of merged cells in the first one: the patient of the rows below it would be unknown."""
    rows = [("image", "patient", "note"), ("a", "P1", "x"), ("b", None, None), ("c", "P2", "y"), ("d", "P2", "y")]
    workbook(source / "t.xlsx", other=[("image",)], data=rows)
    book = openpyxl.load_workbook(source / "t.xlsx")
    for area in ("B2:B3", "C2:C3", "A7:C9"):  # patients; a column that is not used; below the table
        book["data"].merge_cells(area)
    book.save(source / "t.xlsx")
    assert [fault.partition(": the cells")[0] for fault in read(source, sheet="data")[1].faults] == [
        "t.xlsx: row 2 to 3, patient"
    ]
    assert read(source, sheet="data", columns={"group": "none"})[1].faults == []
