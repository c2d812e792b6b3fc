"""Outlines drawn in COCO, Labelme and Pascal VOC files: their pixels, and any junk in their place."""

import contextlib
import copy
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_folder import SIZE, add, box, plan, read, save, speckle, write

from data_prep.folder import drawings
from data_prep.folder.drawings import Drawing, filled
from thyroid_jax.errors import InputError

SQUARE = [6, 5, 16, 5, 16, 13, 6, 13]  # x, y of the corners of box()
OTHER = [20, 14, 30, 14, 30, 22, 20, 22]
HEIGHT, WIDTH = SIZE


def image(number, name, **more):
    return {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH} | more


def annotation(number, segmentation, **more):
    return {"id": 9, "image_id": number, "category_id": 1, "bbox": [0, 0, 5, 5], "segmentation": segmentation} | more


def coco(*pairs):
    """A COCO document of (image, annotations) pairs."""
    return {
        "images": [pair[0] for pair in pairs],
        "annotations": [one for pair in pairs for one in pair[1]],
        "categories": [{"id": 1, "name": "nodule"}, {"id": 2, "name": "cyst"}],
    }


def runs(mask):
    """Uncompressed run lengths of a mask, column by column, outside first."""
    flat = (mask > 0).T.ravel()
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1), len(flat)]
    lengths = np.diff(edges).tolist()
    return {"size": list(mask.shape), "counts": [0, *lengths] if flat[0] else lengths}


def test_a_polygon_encloses_the_centres_of_its_pixels():
    square = np.reshape(SQUARE, (-1, 2)).astype(float)
    np.testing.assert_array_equal(filled(square, SIZE), box() == 255)
    np.testing.assert_array_equal(filled(square[::-1] + 0.4, SIZE), box() == 255)
    star = np.array([(0, 0), (10, 0), (10, 10), (0, 10), (0, 0), (3, 3), (7, 3), (7, 7), (3, 7), (3, 3)], float)
    assert filled(star, SIZE).sum() == 100 - 16  # even-odd: what is enclosed twice is outside


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-20, 50), st.floats(-20, 50)), min_size=3, max_size=9))
def test_a_polygon_equals_the_crossing_number(points):
    """Every pixel's centre against the definition: a ray to the left crosses an odd number of edges."""
    mask = filled(np.array(points), (12, 15))
    for row in range(12):
        for column in range(15):
            x, y, odd = column + 0.5, row + 0.5, False
            near = False
            for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]]):
                if (y0 <= y) != (y1 <= y):
                    at = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
                    near |= abs(at - x) < 1e-6 or min(abs(y0 - y), abs(y1 - y)) < 1e-6
                    odd ^= at < x
            assert near or mask[row, column] == odd


def test_coco(tmp_path):
    add(tmp_path, *(f"images/{name}.png" for name in "abcdef"))
    document = coco(
        (image(1, "a.png"), [annotation(1, [SQUARE, OTHER]), annotation(1, None)]),
        (image(2, "images/b.png"), [annotation(2, [SQUARE]), annotation(2, [OTHER], category_id=2)]),
        (image(3, "c.png"), [annotation(3, runs(box()))]),
        (image(4, "d.png"), [annotation(4, [])]),
        (image(5, "e.png"), []),
        (image(6, "gone.png"), [annotation(6, [SQUARE])]),
    )
    write(tmp_path, "annotations/instances.json", document)
    asked = read(tmp_path)[1].faults
    assert (
        len(asked) == 1 and "several categories, cyst, nodule; say which are the nodule, as with --labels" in asked[0]
    )
    found, notes, remarks = read(tmp_path, labels=("nodule", "cyst"))
    assert notes.faults == []
    both = (box() | box(14, 20)) == 255
    for name, mask in {"a": both, "b": both, "c": box() == 255}.items():
        np.testing.assert_array_equal(found[name].mask, mask)
    assert [found[name].mask for name in "def"] == [None] * 3
    assert notes.counts["images with boxes only, which are no outline"] == 1
    assert notes.counts["images whose mask is empty"] == 1 and notes.counts["images without mask"] == 2
    assert notes.dropped == [("annotations/instances.json: 'gone.png'", "there is no such image")]
    assert remarks["images with outlines have boxes besides, whose contents count as outside"] == ["images/a.png"]
    for chosen in ({"mask_values": (2,)}, {"labels": ("cyst",)}):
        np.testing.assert_array_equal(read(tmp_path, **chosen)[0]["b"].mask, box(14, 20) == 255)
    assert (
        "categories: none is called tumour; there are nodule, cyst" in read(tmp_path, labels=("tumour",))[1].faults[0]
    )
    assert "COCO polygons called cyst." in plan(tmp_path, labels=("cyst",)).card.labels


@pytest.mark.parametrize("second", [2, None])
def test_categories_without_a_name_must_be_chosen_too(tmp_path, second):
    add(tmp_path, "images/a.png")
    document = coco((image(1, "a.png"), [annotation(1, [SQUARE]), annotation(1, [OTHER], category_id=second)]))
    write(tmp_path, "annotations/instances.json", document | {"categories": []})
    other = "category 2" if second else "no category"
    (fault,) = read(tmp_path)[1].faults
    assert f"several categories, category 1, {other}; say which are the nodule" in fault and "--mask-values" in fault
    found, notes, _ = read(tmp_path, mask_values=(1,))
    assert notes.faults == []
    np.testing.assert_array_equal(found["a"].mask, box() == 255)


def test_faults_of_coco(tmp_path):
    add(tmp_path, "a.png", "b.png", "c.png")
    document = coco(
        (image(1, "a.png", width=99), [annotation(1, [SQUARE])]),
        (image(2, "b.png"), [annotation(2, [[1, 2, 3]]), annotation(2, [[1, 2]]), annotation(7, [SQUARE])]),
        (image(2, "c.png"), [annotation(2, {"size": list(SIZE), "counts": "abc"})]),
        (image(3, "b.png"), [annotation(2, {"size": list(SIZE), "counts": [5]}), annotation(2, [["x"] * 6])]),
    )
    write(tmp_path, "coco.json", document)
    _, notes, _ = read(tmp_path)
    assert len(notes.faults) == 9
    for message in (
        "a.png: a COCO file: size: 99 x 24, but the image is 32 x 24",
        "coco.json: annotations[1]: segmentation: 3 numbers, coordinates come in pairs",
        "coco.json: annotations[2]: segmentation: 1 points",
        "coco.json: annotations[3]: image_id: there is no image 7",
        "coco.json: annotations[4]: segmentation: compressed run lengths",
        "coco.json: annotations[5]: segmentation.counts: 5 pixels",
        "coco.json: annotations[6]: segmentation: 'x' is not a coordinate",
        "coco.json: images[2]: id 2",
        "coco.json: images[3]: id 3",
    ):
        assert sum(fault.startswith(message) for fault in notes.faults) == 1, message


def shape(points, kind="polygon", **more):
    return {"label": "nodule", "points": points, "shape_type": kind, "group_id": None, "flags": {}} | more


def labelme(*shapes, **more):
    usual = {"version": "5.2", "flags": {}, "shapes": list(shapes), "imagePath": "a.png", "imageData": "/9j/4AAQ"}
    return usual | {"imageHeight": HEIGHT, "imageWidth": WIDTH} | more


def test_labelme(tmp_path):
    add(tmp_path, "a.png", "images/b.png", "c.png", "d.png")
    corners = np.reshape(SQUARE, (-1, 2)).tolist()
    write(tmp_path, "a.json", labelme(shape(corners), shape([[30, 22], [20, 14]], "rectangle")))
    write(tmp_path, "labels/b.json", labelme(shape([[10, 10], [13, 14]], "circle"), imagePath="..\\images\\b.png"))
    write(tmp_path, "c.json", labelme(shape([[1, 1], [2, 2]], "line"), imagePath="other.png"))
    write(tmp_path, "d.json", labelme(shape([[-9, 5], [16, 5], [16, 13], [-9, 13]]), imagePath="d.png"))
    write(tmp_path, "package.json", {"name": "something else"})
    found, notes, remarks = read(tmp_path)
    assert notes.faults == []
    np.testing.assert_array_equal(found["a"].mask, box() == 255)  # a rectangle is a box
    assert remarks["images with outlines have boxes besides, whose contents count as outside"] == ["a.png"]
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    np.testing.assert_array_equal(found["b"].mask, np.hypot(columns - 10, rows - 10) <= 5)
    assert notes.counts["images without mask"] == 1 and notes.counts["images whose mask is empty"] == 0
    assert found["c"].mask is None and remarks["shapes of kind 'line' are no outline"] == ["c.png"]
    assert remarks["Labelme shapes called 'nodule' count as nodule"] == ["a.json", "d.json", "labels/b.json"]
    assert remarks["Labelme files name another image than the one that they are called after"] == ["c.json"]
    assert found["d"].mask.sum() == 8 * 16
    assert remarks["outlines that leave the image are cut off at its edge"] == ["d.png"]
    assert remarks["JSON files that are neither COCO nor named after an image are not read"] == ["package.json"]


def test_names_of_labelme_must_be_chosen(tmp_path):
    corners, around = np.reshape(SQUARE, (-1, 2)).tolist(), [[0, 0], [32, 0], [32, 20], [0, 20]]
    for name, label, points in (("a", "nodule", corners), ("b", "thyroid", around)):
        add(tmp_path, f"{name}.png")
        write(tmp_path, f"{name}.json", labelme(shape(points, label=label), imagePath=f"{name}.png"))
    _, notes, _ = read(tmp_path)
    assert notes.faults == [
        "Labelme: shapes have several names, nodule (a.json), thyroid (b.json); say which are the nodule, as with "
        "--labels nodule."
    ]
    found, notes, _ = read(tmp_path, labels=("nodule",))
    assert notes.faults == [] and found["b"].mask is None
    np.testing.assert_array_equal(found["a"].mask, box() == 255)
    _, notes, _ = read(tmp_path, labels=("Nodule", "thyroid"))
    assert notes.faults == ["Labelme: no outline is called Nodule; mend --labels."]
    found, notes, _ = read(tmp_path, labels=("nodule", "thyroid"))
    assert notes.faults == [] and found["b"].mask.sum() == 32 * 20
    write(tmp_path, "b.json", labelme(shape(around, label=""), imagePath="b.png"))
    (fault,) = read(tmp_path)[1].faults
    assert "several names, no name (b.json), nodule (a.json); say which are the nodule, as with --labels nod" in fault
    found, notes, _ = read(tmp_path, labels=("nodule",))
    assert notes.faults == [] and found["b"].mask is None


@pytest.mark.parametrize(
    "labels", [{"background": 0, "thyroid": 1, "nodule": 2}, {"0": "background", "1": "thyroid", "2": "nodule"}]
)
def test_labels_of_nnunet_must_be_chosen(tmp_path, labels):
    add(tmp_path, "imagesTr/x_0000.png")
    save(tmp_path / "labelsTr/x.png", box(value=2))
    write(tmp_path, "dataset.json", {"channel_names": {"0": "US"}, "labels": labels, "numTraining": 1})
    _, notes, _ = read(tmp_path)
    assert len(notes.faults) == 1
    assert notes.faults[0].startswith(
        "dataset.json: labels: has thyroid 1, nodule 2; say which are the nodule, as with"
    )
    found, notes, _ = read(tmp_path, labels=("nodule",))
    assert notes.faults == [] and found["x"].mask.sum() == 80
    assert read(tmp_path, labels=("thyroid",))[0]["x"].mask is None
    assert read(tmp_path, mask_values=(2,))[0]["x"].mask.sum() == 80
    assert "not all of --labels cyst" in read(tmp_path, labels=("cyst",))[1].faults[0]
    write(tmp_path, "dataset.json", {"channel_names": {"0": "US"}, "labels": {"background": 0, "nodule": 2}})
    assert read(tmp_path)[1].faults == []
    for junk in (3, {"a": "b"}, {"a": {}}, {"a": 1e400}, {"\x1b": 1}):
        write(tmp_path, "dataset.json", {"channel_names": {"0": "US"}, "labels": junk})
        assert read(tmp_path)[1].faults[0].startswith("dataset.json: ")


def test_a_coco_file_in_each_split(tmp_path):
    for folder, outline in {"train": SQUARE, "test": OTHER}.items():
        add(tmp_path, f"{folder}/0.png")
        write(tmp_path, f"{folder}/_annotations.coco.json", coco((image(1, "0.png"), [annotation(1, [outline])])))
    found, notes, _ = read(tmp_path)
    assert notes.faults == []
    np.testing.assert_array_equal(found["train/0"].mask, box() == 255)
    np.testing.assert_array_equal(found["test/0"].mask, box(14, 20) == 255)


def test_an_outline_without_points_is_a_box(tmp_path):
    add(tmp_path, "a.png")
    write(tmp_path, "coco.json", coco((image(1, "a.png"), [annotation(1, [[]])])))
    found, notes, _ = read(tmp_path)
    assert notes.faults == [] and found["a"].mask is None
    assert notes.counts["images with boxes only, which are no outline"] == 1


def test_a_mask_file_comes_before_a_drawing(tmp_path):
    add(tmp_path, "a.png")
    save(tmp_path / "a_mask.png", box(2))
    write(tmp_path, "a.json", labelme(shape([[1, 1], [9, 1], [9, 9]])))
    found, _, remarks = read(tmp_path)
    np.testing.assert_array_equal(found["a"].mask, box(2) == 255)
    assert remarks["drawings of images that have a mask file are not used"] == ["a.png"]


VOC = "<annotation><object><name>nodule</name><bndbox><xmin>1</xmin></bndbox></object></annotation>"


def test_boxes_are_no_outlines(tmp_path):
    add(tmp_path, "JPEGImages/a.png", "JPEGImages/b.png", "JPEGImages/c.png")
    write(tmp_path, "Annotations/a.xml", VOC)
    write(tmp_path, "Annotations/b.xml", "<annotation></annotation>")
    write(tmp_path, "Annotations/gone.xml", VOC)
    found, notes, remarks = read(tmp_path)
    assert notes.faults == [] and {record.mask for record in found.values()} == {None}
    assert notes.counts["images with boxes only, which are no outline"] == 1
    assert notes.counts["images without mask"] == 3
    assert remarks["XML files without image are not read"] == ["Annotations/gone.xml"]
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotation>&b;</annotation>'
    write(tmp_path, "Annotations/b.xml", bomb)
    write(tmp_path, "Annotations/c.xml", "<html></html>")
    _, notes, _ = read(tmp_path)
    assert len(notes.faults) == 2
    assert "declares a document type" in notes.faults[0] and "begins with <html>" in notes.faults[1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        '{"shapes": [' + "9" * 5000 + "]}",
        '{"shapes": NaN}',
        '{"shapes": [{"points": [[1e999, 1], [2, 2], [3, 3]]}]}',
        json.dumps(labelme(shape([[0, 0], [1e300, 1], [5, 5]]))),
        json.dumps(labelme(shape([[0, 0], [True, 1], [5, 5]]))),
        json.dumps(labelme(shape([[0, 0]], "circle"))),
        json.dumps(labelme(*[shape([[0, 0], [1, 1], [5, 5]])] * 1001)),
        json.dumps(labelme(imageHeight=-3)),
    ],
)
def test_junk_in_place_of_labelme(tmp_path, text):
    add(tmp_path, "a.png")
    write(tmp_path, "a.json", text)
    _, notes, _ = read(tmp_path)
    assert len(notes.faults) == 1 and notes.faults[0].startswith("a.json: ")


def test_a_polygon_of_too_many_crossings():
    zigzag = np.array([(1.0, 0.0), (2.0, 4000.0)] * 3000)
    with pytest.raises(InputError, match="crosses the rows"):
        filled(zigzag, (4000, 8))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([10**400, -1]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    """The path of every value in a document."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def put(document, path, value):
    """The document with another value at a path; at () it is the value."""
    if not path:
        return value
    changed = copy.deepcopy(document)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


WHOLE_COCO = coco((image(1, "a.png"), [annotation(1, [SQUARE, OTHER]), annotation(1, runs(box()))]))
WHOLE_LABELME = labelme(shape([[1, 1], [9, 1], [9, 9]]), shape([[1, 1], [3, 3]], "circle"), shape([[1, 1]], "point"))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_value_anywhere_in_a_drawing(data):
    """Nothing but InputError comes out, and what is accepted can be drawn."""
    whole = data.draw(st.sampled_from([WHOLE_COCO, WHOLE_LABELME]))
    document = put(whole, data.draw(st.sampled_from(list(places(whole)))), data.draw(JSON))
    found = []
    if drawings.is_coco(document):
        found = list(drawings.coco(document, [], data.draw(st.sampled_from([(), (1,)]))).values())
    with contextlib.suppress(InputError):  # the one error that may come out; any other fails the test
        found.append(drawings.labelme(document)[0])
    for drawing in found:
        try:
            mask, _ = drawings.mask_of(drawing, SIZE)
        except InputError:
            continue
        assert mask.shape == SIZE and mask.dtype == bool


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(VOC)), st.binary(max_size=6), st.integers(0, 8))
def test_any_bytes_in_a_file_of_boxes(tmp_path_factory, at, junk, cut):
    path = tmp_path_factory.getbasetemp() / "fuzz.xml"
    path.write_bytes(VOC.encode()[:at] + junk + VOC.encode()[at + cut :])
    try:
        assert drawings.read_boxes(path) >= 0
    except InputError as error:
        assert "XML" in str(error)


def test_a_drawing_of_nothing_is_an_empty_mask():
    mask, cut = drawings.mask_of(Drawing(), SIZE)
    assert not mask.any() and not cut and math.prod(mask.shape) == HEIGHT * WIDTH


def test_a_drawing_on_a_stack_is_a_fault(tmp_path):
    save(tmp_path / "a.npy", np.stack([speckle(0), speckle(1)]))
    write(tmp_path, "a.json", labelme(shape([[1, 1], [9, 1], [9, 9]])))
    assert "frames: the image has 2, a drawing is of one" in read(tmp_path)[1].faults[0]
