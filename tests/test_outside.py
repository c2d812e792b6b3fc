"""Other people's results: files found by name, values read strictly, every fault named at once, the table by hand."""

import re
from dataclasses import replace

import numpy as np
import pytest
from openpyxl import Workbook
from PIL import Image
from toys import CARD, factory, toys

from data_prep import builder
from experiments import evaluate as script
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate import metrics, outside
from thyroid_jax.evaluate.cases import read_cases
from thyroid_jax.evaluate.outside import Reading

GRADES = ("low", "mid", "high")
COLUMNS = ["case", "grade", "p_low", "p_mid", "p_high", "p_malignant"]


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


# --- masks ------------------------------------------------------------------------------------------------------------


def test_files_are_found_by_name_also_nnunets_and_those_in_folders(tmp_path):
    for name in ("a.png", "b.nii.gz", "sub/c.tif", "sub/d.e.PNG", ".hidden.png", ".git/x.png", "plans.json", "a.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    faults = []
    found = outside.find_masks(tmp_path, faults)
    assert list(found.files) == ["a", "b", "sub/c", "sub/d.e"] and found.others == 2 and not faults


def test_two_files_of_one_name_are_a_fault_and_an_empty_folder_an_error(tmp_path):
    with pytest.raises(InputError, match="no mask there"):
        outside.find_masks(tmp_path, [])
    with pytest.raises(InputError, match="no such folder"):
        outside.find_masks(tmp_path / "no", [])
    for name in ("a.png", "a.tif"):
        (tmp_path / name).write_bytes(b"")
    faults = []
    outside.find_masks(tmp_path, faults)
    assert faults == ["a.tif: a.png has the same name; leave one of them."]


def masks_of(kind):
    inside = np.zeros((4, 6), bool)
    inside[1:3, 2:5] = True
    return inside, {
        "0 and 255": np.where(inside, np.uint8(255), np.uint8(0)),
        "0 and 1": inside.astype(np.uint8),
        "one bit": inside,
        "colours": np.where(inside[..., None], np.uint8(255), np.zeros(3, np.uint8)),
        "16 bits": inside.astype(np.uint16) * 255,
    }[kind]


@pytest.mark.parametrize("kind", ["0 and 255", "0 and 1", "one bit", "colours", "16 bits"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_outlines_of_every_usual_kind_are_read_as_they_were_drawn(tmp_path, kind, suffix):
    inside, stored = masks_of(kind)
    save(tmp_path / f"x{suffix}", stored)
    values = outside.read_values(tmp_path / f"x{suffix}", (4, 6))
    np.testing.assert_array_equal(outside.outline_of(values, Reading()), inside)


def test_an_outline_saved_with_few_colours_is_read_as_it_is_shown(tmp_path):
    """Pillow's ``quantize`` gives white, the nodule, index 0; a mask without nodule has one colour."""
    inside, stored = masks_of("0 and 255")
    for name, shown in (("nodule", stored), ("empty", np.zeros_like(stored))):
        Image.fromarray(shown).quantize(2).save(tmp_path / f"{name}.png")
        values = outside.read_values(tmp_path / f"{name}.png", (4, 6))
        np.testing.assert_array_equal(outside.outline_of(values, Reading()), shown > 0)
    by_index = Reading(labels=(1,))
    values = outside.read_values(tmp_path / "nodule.png", (4, 6), by_index)
    np.testing.assert_array_equal(outside.outline_of(values, by_index), ~inside)


def test_a_palette_that_all_masks_share_may_leave_its_white_unused(tmp_path):
    empty = Image.fromarray(np.ones((4, 6), np.uint8))
    empty.putpalette([255, 255, 255, 0, 0, 0])
    empty.save(tmp_path / "x.png")
    assert not outside.outline_of(outside.read_values(tmp_path / "x.png", (4, 6)), Reading()).any()


def test_a_palette_without_black_is_refused_unless_its_labels_are_named(tmp_path):
    inside, _ = masks_of("0 and 255")
    picture = Image.fromarray(inside.astype(np.uint8))
    picture.putpalette([68, 1, 84, 253, 231, 37])
    picture.save(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"index 0 is 0x440154 and no pixel is black; --labels says which"):
        outside.read_values(tmp_path / "x.png", (4, 6))
    by_index = Reading(labels=(1,))
    found = outside.outline_of(outside.read_values(tmp_path / "x.png", (4, 6), by_index), by_index)
    np.testing.assert_array_equal(found, inside)
    picture.putpalette([255, 0, 0, 0, 0, 0])  # red on black; the number of a colour is no label
    picture.save(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"black is not index 0 and 0xFF0000 is no grey; --labels says .* by their"):
        outside.read_values(tmp_path / "x.png", (4, 6))


def test_nifti_of_nnunet_has_its_rows_and_columns_where_the_picture_has_them(tmp_path):
    """nnU-Net writes [1 h w] through SimpleITK, which stores x first: the file holds the transpose."""
    import nibabel

    inside, stored = masks_of("0 and 1")
    nibabel.Nifti1Image(stored.T[..., None], np.eye(4)).to_filename(tmp_path / "x.nii.gz")
    values = outside.read_values(tmp_path / "x.nii.gz", (4, 6))
    np.testing.assert_array_equal(outside.outline_of(values, Reading()), inside)


def test_a_mask_of_another_size_or_compressed_with_loss_is_refused(tmp_path):
    save(tmp_path / "turned.png", np.zeros((6, 4), np.uint8))
    save(tmp_path / "lossy.jpg", np.zeros((4, 6), np.uint8))
    save(tmp_path / "large.png", np.zeros((8, 12), np.uint8))
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(
        tmp_path / "clip.tif", save_all=True, append_images=[Image.fromarray(np.ones((4, 6), np.uint8))]
    )
    for name, said in (
        (
            "turned.png",
            r"6 x 4 pixels \(rows x columns\), the image has 4 x 6, so its rows and columns may be exchanged",
        ),
        ("large.png", r"8 x 12 pixels \(rows x columns\), the image has 4 x 6$"),
        ("lossy.jpg", "compressed with loss"),
        ("clip.tif", "2 frames; a mask has one"),
        ("missing.png", "file: is not there"),
    ):
        with pytest.raises(InputError, match=said):
            outside.read_values(tmp_path / name, (4, 6))


@pytest.mark.parametrize("values, reading, expected", [
    ([0, 0], Reading(), [0, 0]), ([1, 1], Reading(), [1, 1]), ([255, 0], Reading(), [1, 0]),
    ([0, 1, 2], Reading(labels=(1, 2)), [0, 1, 1]), ([0, 1, 2], Reading(labels=(2,)), [0, 0, 1]),
    ([0, 127, 128, 255], Reading(soft=True), [0, 0, 1, 1]),
])  # fmt: skip
def test_which_values_are_nodule(values, reading, expected):
    np.testing.assert_array_equal(
        outside.outline_of(np.array([values], np.int32), reading)[0], np.array(expected, bool)
    )


@pytest.mark.parametrize("values, reading, said", [
    ([0, 1, 2], Reading(), "values 0 1 2, but a mask has 0 and 1, or 0 and 255; --labels says"),
    ([0, 1, 255], Reading(), "values 0 1 255"), ([128, 0], Reading(), "values 0 128"),
    (list(range(20)), Reading(), r"values 0 1 2 3 4 5 6 7 \.\.\.,"),
    ([0, 256], Reading(soft=True), "values from 0 to 256; probabilities are stored as 0 to 255"),
    ([-1, 3], Reading(soft=True), "from -1 to 3"), ([0, -1], Reading(), "values -1 0"),
])  # fmt: skip
def test_values_that_are_not_certain_are_refused(values, reading, said):
    with pytest.raises(InputError, match=said):
        outside.outline_of(np.array([values], np.int32), reading)


def test_outlines_are_not_taken_for_probabilities_nor_labels_that_are_nowhere_for_empty_outlines():
    for seen, reading, expected in (
        ({0, 1}, Reading(soft=True), ["--soft: no mask has a value above 1"]),
        ({0, 1, 7}, Reading(soft=True), []),
        ({0, 1}, Reading(labels=(1, 2)), ["--labels 2: no mask has this value"]),
        ({0}, Reading(), []),
    ):
        faults = []
        outside.check_reading(seen, reading, faults)
        assert [fault[: len(text)] for fault, text in zip(faults, expected, strict=True)] == expected


# --- the table --------------------------------------------------------------------------------------------------------


def judged(rows, columns=COLUMNS, grades=GRADES, hard=False):
    faults = []
    named = [(number, dict(zip(columns, row.split(",")))) for number, row in enumerate(rows, 2)]
    return outside.read_judgements(named, columns, grades, faults, hard=hard), faults


def test_a_row_holds_the_grade_every_probability_and_that_of_malignancy():
    found, faults = judged(["x,mid,0.2,0.3,0.5,0.25", "y,,0.5,0.5,0,", "z,,,,,1", "w,,,,,"])
    assert not faults
    assert found["x"].grade == "mid" and found["x"].probability == {"low": 0.2, "mid": 0.3, "high": 0.5}
    assert found["x"].p_malignant == 0.25
    assert found["y"].grade == "" and np.isnan(found["y"].p_malignant)
    assert found["z"].probability == {} and found["z"].p_malignant == 1 and np.isnan(found["w"].p_malignant)


@pytest.mark.parametrize("row, said", [
    ("x,top,0.2,0.3,0.5,0", "row 2, case 'x': grade 'top' is not one of low, mid, high."),
    ("x,,0.2,,0.8,0", "row 2, case 'x': 2 of 3 grades have a probability; all or none must have one."),
    ("x,,0.2,0.3,0.6,0", "row 2, case 'x': the probabilities of the grades have the sum 1.1, not 1."),
    ("x,,0.2,0.3,high,0", "row 2, case 'x': p_high is 'high', not a number from 0 to 1."),
    ("x,,1.2,-0.2,0,0", "row 2, case 'x': p_low is '1.2', not a number from 0 to 1."),
    ("x,,nan,1,0,0", "row 2, case 'x': p_low is 'nan', not a number from 0 to 1."),
    ("x,,0.2,0.3,0.5,inf", "row 2, case 'x': p_malignant is 'inf', not a number from 0 to 1."),
    ("x,mid,,,,0.5", "row 2, case 'x': a grade without probabilities."),
    (",mid,0.2,0.3,0.5,0", "row 2: no case."),
])  # fmt: skip
def test_every_faulty_row_is_named(row, said):
    assert said in judged([row])[1]


def test_faults_of_all_rows_are_named_together_and_a_case_twice_is_one():
    _, faults = judged(["x,mid,0.2,0.3,0.5,0", "x,mid,0.2,0.3,0.5,0", "y,top,1,0,0,0"])
    assert faults == ["row 3: case 'x' is there twice.", "row 4, case 'y': grade 'top' is not one of low, mid, high."]


def test_a_number_that_is_none_is_one_fault_and_no_second_one_about_the_sum():
    assert judged(["x,,nan,1,0,0"])[1] == ["row 2, case 'x': p_low is 'nan', not a number from 0 to 1."]


def test_rounded_probabilities_are_taken_as_they_are():
    found, faults = judged(["x,,0.333,0.333,0.333,0"])
    assert not faults and sum(found["x"].probability.values()) == pytest.approx(0.999)


@pytest.mark.parametrize("columns, hard, said", [
    (["case", "p_low", "p_mid", "p_hihg"], False, "column 'p_hihg': no such grade; known are p_low, p_mid, p_high"),
    (["case", "p_low", "p_mid"], False, "no column p_high: every grade of the data set needs its probability"),
    (["image", "p_malignant"], False, "there is no column 'case'"),
    (["case", "grade"], False, "column 'grade' without p_low, p_mid, p_high: measures of the grade need"),
    (["case", "size"], False, "there is nothing to evaluate"),
    (["case", "case", "p_malignant"], False, "column 'case' is there twice"),
    (COLUMNS, True, "--hard-grades is for a table with a column 'grade' and without probabilities"),
    (["case", "p_malignant"], True, "--hard-grades is for"),
])  # fmt: skip
def test_faulty_headers_are_named(columns, hard, said):
    assert any(said in fault for fault in judged([], columns, hard=hard)[1])


def test_hard_grades_are_probabilities_of_1_where_that_is_asked_for():
    found, faults = judged(["x,mid", "y,"], ["case", "grade"], hard=True)
    assert not faults and found["x"].probability == {"low": 0.0, "mid": 1.0, "high": 0.0}
    assert found["y"].probability == {}


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside")
    builder.build(CARD, factory, folder, near=False)
    return folder


@pytest.fixture
def results(data, tmp_path):
    """Masks and a table of the toys: outlines moved by a pixel, probabilities from a generator."""
    rng = np.random.default_rng(5)
    lines = [",".join(COLUMNS)]
    for record in toys():
        if record.mask is not None:
            moved = np.roll(record.mask, 1, axis=0)
            save(tmp_path / "masks" / f"{record.case}.png", np.where(moved, np.uint8(255), np.uint8(0)))
        share = rng.dirichlet([1, 1, 1])
        lines.append(f"{record.case},,{share[0]},{share[1]},{share[2]},{rng.uniform()}")
    (tmp_path / "grades.csv").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def command(data, folder, *more, masks=True, grades=True):
    words = ["--data.name", "toy", "--data.dir", str(data), "--out", str(folder / "out"), "--samples", "20"]
    words += ["--masks", str(folder / "masks")] if masks else []
    words += ["--grades", str(folder / "grades.csv")] if grades else []
    return [*words, "--part", "all", *more]


def refused(capsys, words):
    with pytest.raises(SystemExit) as stop:
        script.main(words)
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_the_table_holds_the_measures_of_each_record(data, results, capsys):
    script.main(command(data, results))
    cases = read_cases(results / "out" / "cases.csv")
    lines = [line.split(",") for line in (results / "grades.csv").read_text().splitlines()[1:]]
    for case, record, line in zip(cases, toys(), lines, strict=True):
        assert (case.case, case.group, case.part) == (record.case, record.group, "all")
        assert list(case.probability.values()) == [float(cell) for cell in line[2:5]]
        assert case.grade_predicted == GRADES[int(np.argmax([float(cell) for cell in line[2:5]]))]
        assert case.grade_truth == ("" if record.grade is None else GRADES[record.grade])
        assert case.p_malignant == float(line[5]) and case.malignant_truth == record.malignant
        cleaning = {"cleaning": "; ".join(record.cleaning)} if record.cleaning else {}
        assert dict(case.about) == cleaning | dict(record.descriptors)
        assert case.reader_grades == tuple(GRADES[grade] for grade in record.reader_grades)
        assert np.isnan(case.contrast_to_noise) == (record.mask is None)
        if record.mask is None:
            assert np.isnan(case.dice) and case.predicted_area_px is None
            continue
        moved = np.roll(record.mask, 1, axis=0)
        assert case.dice == metrics.dice(moved, record.mask)
        assert case.predicted_area_px == moved.sum() and case.reference_area_px == record.mask.sum()
        assert case.reader_dice == tuple(metrics.dice(moved, mask) for mask in record.reader_masks)
        assert np.isnan(case.hd95_mm) == np.isnan(record.spacing[0])
    printed = capsys.readouterr().out
    assert "malignant_auroc" in printed and f"table: {results / 'out' / 'cases.csv'}" in printed


def test_masks_or_the_table_alone_are_enough(data, results):
    script.main(command(data, results, grades=False))
    cases = read_cases(results / "out" / "cases.csv")
    assert all(not case.probability and np.isnan(case.p_malignant) for case in cases)
    assert any(not np.isnan(case.dice) for case in cases)
    script.main(command(data, results, masks=False))
    assert all(np.isnan(case.dice) and case.probability for case in read_cases(results / "out" / "cases.csv"))


def test_an_excel_table_gives_the_same_and_a_grade_of_its_own_is_kept(data, results, capsys):
    script.main(command(data, results, masks=False))
    first = read_cases(results / "out" / "cases.csv")
    book = Workbook()
    for number, line in enumerate((results / "grades.csv").read_text().splitlines()):
        cells = line.split(",")
        book.active.append(
            [cells[0], "high" if number else "grade", *([float(c) for c in cells[2:]] if number else cells[2:])]
        )
    book.save(results / "grades.xlsx")
    script.main(command(data, results, "--grades", str(results / "grades.xlsx"), masks=False, grades=False))
    second = read_cases(results / "out" / "cases.csv")
    for one, other in zip(first, second, strict=True):
        assert dict(other.probability) == pytest.approx(dict(one.probability), abs=1e-15)
        kept = replace(one, grade_predicted="high", probability=other.probability, p_malignant=other.p_malignant)
        assert repr(other) == repr(kept)  # a missing value, NaN, is not equal to itself
    count = sum(case.grade_predicted != "high" for case in first)
    assert f"in {count} rows the grade is not the most probable one; it is kept" in capsys.readouterr().out


def test_columns_without_a_name_do_not_move_the_others(data, results):
    """A blank column in the middle, and the unnamed numbers of the rows that pandas writes first."""
    script.main(command(data, results, masks=False))
    first = read_cases(results / "out" / "cases.csv")
    head, *lines = [line.split(",") for line in (results / "grades.csv").read_text().splitlines()]
    wide = [["", *head[:5], "", head[5]]]
    wide += [[str(number), *line[:5], "0.25", line[5]] for number, line in enumerate(lines)]
    (results / "grades.csv").write_text("\n".join(map(",".join, wide)))
    script.main(command(data, results, masks=False))
    assert repr(read_cases(results / "out" / "cases.csv")) == repr(first)


def test_all_faults_are_named_at_once_and_nothing_is_written(data, results, capsys):
    masks = sorted((results / "masks").iterdir())
    masks[0].unlink()
    masks[1].rename(results / "masks" / "unknown.png")
    save(masks[2], np.zeros((3, 3), np.uint8))
    save(masks[3], np.full(np.asarray(Image.open(masks[3])).shape, 7, np.uint8))
    text = (results / "grades.csv").read_text().splitlines()
    (results / "grades.csv").write_text("\n".join([*text[:-1], "stranger,,1,0,0,0", "other,,1,0,0,2"]))
    error = refused(capsys, command(data, results))
    for said in (
        f"{masks[0].stem}: no mask of this case.",
        f"{masks[1].stem}: no mask of this case.",
        "unknown: a mask, but the data set has no such case.",
        f"{masks[2].name}: 3 x 3 pixels",
        f"{masks[3].name}: values 7, but a mask has 0 and 1",
        "8_é: no row of this case.",
        "stranger: a row, but the data set has no such case.",
        "other: a row, but the data set has no such case.",
        "grades.csv: row 11, case 'other': p_malignant is '2'",
    ):
        assert said in error, said
    assert "9 faults; nothing was written" in error and not (results / "out").exists()


def test_only_what_is_known_needs_a_prediction(data, results):
    """A record without an outline needs no mask; one without grade and malignancy needs no row."""
    bare = [record.case for record in toys() if record.grade is None and record.malignant is None]
    lines = (results / "grades.csv").read_text().splitlines()
    (results / "grades.csv").write_text("\n".join(line for line in lines if line.split(",")[0] not in bare))
    script.main(command(data, results))
    cases = {case.case: case for case in read_cases(results / "out" / "cases.csv")}
    assert bare and len(cases) == 9 and all(not cases[case].probability for case in bare)


def test_the_part_of_a_split_is_evaluated_and_other_predictions_do_not_matter(data, results, capsys):
    import json

    names = [record.case for record in toys()]
    (results / "split.json").write_text(json.dumps({"train": names[4:], "validation": names[2:4], "test": names[:2]}))
    script.main(command(data, results, "--split", str(results / "split.json"), "--part", "validation"))
    assert [case.case for case in read_cases(results / "out" / "cases.csv")] == names[2:4]
    capsys.readouterr()
    (results / "split.json").write_text(json.dumps({"test": [*names, "not there"]}))
    error = refused(capsys, command(data, results, "--split", str(results / "split.json"), "--part", "test"))
    assert "1 cases are not in toy, the first is 'not there'" in error
    error = refused(capsys, command(data, results, "--split", str(results / "split.json"), "--part", "train"))
    assert "holds no cases of the train part" in error
    error = refused(capsys, command(data, results, "--part", "test"))
    assert "--part test: toy has no such part of its own" in error


def test_probabilities_are_cut_at_one_half(data, results, capsys):
    for path in (results / "masks").iterdir():
        save(path, np.where(np.asarray(Image.open(path)) > 0, np.uint8(128), np.uint8(127)))
    error = refused(capsys, command(data, results, grades=False))
    assert "values 127 128, but a mask has 0 and 1" in error
    script.main(command(data, results, "--soft", grades=False))
    for case, record in zip(read_cases(results / "out" / "cases.csv"), toys(), strict=True):
        if record.mask is not None:
            assert case.dice == metrics.dice(np.roll(record.mask, 1, axis=0), record.mask)


@pytest.mark.parametrize("words, said", [
    ([], "name --run-dir, or --masks and --grades"),
    (["--run-dir", "a", "--soft"], "--soft would do nothing here"),
    (["--run-dir", "a", "--part", "all"], "--part all is for results from elsewhere"),
    (["--run-dir", "a", "--masks", "b", "--out", "c"], "--masks would do nothing here; --out would do nothing here"),
    (["--masks", "a"], "need --data.name and --out"),
    (["--masks", "a", "--data.name", "b", "--out", "c", "--flip"], "--flip would do nothing here"),
    (["--masks", "a", "--data.name", "b", "--out", "c", "--hard-grades"], "--hard-grades would do nothing here"),
    (["--grades", "a", "--data.name", "b", "--out", "c", "--labels", "1"], "--labels would do nothing here"),
    (["--masks", "a", "--data.name", "b", "--out", "c", "--labels", "1", "--soft"], "two ways to read masks"),
    (["--masks", "a", "--data.name", "b", "--out", "c", "--split", "d", "--part", "all"], "name different records"),
])  # fmt: skip
def test_options_that_would_do_nothing_are_refused(words, said, capsys):
    assert said in refused(capsys, words)


def test_a_run_folder_is_not_written_into(data, results, capsys):
    (results / "out").mkdir()
    (results / "out" / "config.json").write_text("{}")
    assert "is the folder of a run, whose own table would be replaced" in refused(capsys, command(data, results))


def test_a_row_with_decimal_commas_names_its_file_once(data, results, capsys):
    (results / "grades.csv").write_text("case,p_malignant\nx,0,5\n")
    said = refused(capsys, command(data, results))
    assert "written: grades.csv: row 2: 3 fields, but the header has 2; mend the row." in said


def test_a_table_that_cannot_be_read_is_named(data, results, capsys):
    (results / "grades.csv").write_bytes(b"\xff\xfe\x00")
    assert re.search(r"grades\.csv: ", refused(capsys, command(data, results)))


def test_predictions_for_which_no_record_has_a_reference_are_refused(tmp_path, capsys):
    """A probability of malignancy is asked of records without any."""
    records = [replace(record, malignant=None) for record in toys()]
    builder.build(CARD, lambda notes: iter(records), tmp_path, near=False)
    rows = ["case,p_malignant", *(f"{record.case},0.5" for record in records)]
    (tmp_path / "grades.csv").write_text("\n".join(rows), encoding="utf-8")
    assert "toy has no reference for what is predicted" in refused(capsys, command(tmp_path, tmp_path, masks=False))
    assert not (tmp_path / "out").exists()
