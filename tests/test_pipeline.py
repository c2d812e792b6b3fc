"""Letterboxing to square pixels and back, labels and flags, and an order of batches that a checkpoint can hold."""

import json
import math
import threading
from itertools import islice

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thyroid_jax.batch import Batch, Label
from thyroid_jax.data import pipeline
from thyroid_jax.data.record import Record
from thyroid_jax.errors import InputError
from thyroid_jax.radiomics import clinical

SIZE = (32, 48)
UNKNOWN = (math.nan, math.nan)
sides = st.tuples(st.integers(1, 900), st.integers(1, 900))
sizes = st.tuples(st.sampled_from([16, 32, 96]), st.sampled_from([16, 48, 128]))
spacings = st.one_of(st.just(UNKNOWN), st.tuples(st.floats(0.03, 0.12), st.floats(0.03, 0.12)))


def ellipse(shape, height=0.5, width=0.5):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return ((y / shape[0] - 0.5) / (height / 2)) ** 2 + ((x / shape[1] - 0.5) / (width / 2)) ** 2 <= 1


def record(case="a", shape=(60, 80), seed=0, **labels):
    image = np.random.default_rng(seed).integers(1, 256, shape, dtype=np.uint8)
    return Record(case, case, case, image, **({"mask": ellipse(shape), "grade": 1} | labels))


def numbered(count):
    """Examples whose only content is their number, in every array."""
    number = np.arange(count)
    batch = Batch(
        image=np.broadcast_to(number[:, None, None, None], (count, 2, 2, 1)).astype(np.uint8),
        mask=np.broadcast_to(number[:, None, None], (count, 2, 2)).astype(np.uint8),
        grade=np.eye(count, dtype=np.float32),
        malignant=number.astype(np.float32),
        radiomics=number[:, None].astype(np.float32),
        mask_valid=number % 2 == 0,
        grade_valid=number % 3 == 0,
        malignant_valid=number % 4 == 0,
        radiomics_valid=number % 5 == 0,
        example_valid=np.ones(count, bool),
        extra={"further": Label(np.stack([number, number], axis=1), number % 7 == 0)},
    )
    return pipeline.Examples(batch, tuple(f"case {i}" for i in number))


def numbers(batch):
    """Which examples a batch of `numbered` holds, after checking that all of its arrays and flags agree and its padding
    is empty.
    """
    there = batch.example_valid
    assert not any(np.asarray(values)[~there].any() for values in jax.tree.leaves(batch))
    assert batch.image.dtype == batch.mask.dtype == np.uint8
    rows = [int(row) for row in batch.radiomics[there, 0]]
    further = batch.extra["further"]
    for values in (batch.image[:, 0, 0, 0], batch.mask[:, 1, 1], batch.grade.argmax(-1), batch.malignant,
                   further.value[:, 1]):  # fmt: skip
        assert values[there].tolist() == rows
    flags = (batch.mask_valid, batch.grade_valid, batch.malignant_valid, batch.radiomics_valid, further.valid)
    for flag, step in zip(flags, (2, 3, 4, 5, 7)):
        assert flag[there].tolist() == [row % step == 0 for row in rows]
    return rows


@given(sides, sizes, spacings)
@settings(deadline=None, max_examples=200)
def test_letterbox_geometry_is_inside_centred_and_true_to_the_physical_aspect(shape, size, spacing):
    top, left, height, width = pipeline.letterbox_geometry(shape, size, spacing)
    assert 0 <= top and 1 <= height and top + height <= size[0]
    assert 0 <= left and 1 <= width and left + width <= size[1]
    assert height == size[0] or width == size[1]
    assert abs((size[0] - height) - 2 * top) <= 1 and abs((size[1] - width) - 2 * left) <= 1
    physical = shape if spacing == UNKNOWN else tuple(np.multiply(shape, spacing))
    scale = min(size[0] / physical[0], size[1] / physical[1])
    for found, side in zip((height, width), physical):
        assert abs(found - max(1, scale * side)) <= 0.5 + 1e-6


@given(
    st.tuples(st.integers(60, 200), st.integers(60, 200)),
    st.floats(0.4, 0.8),
    st.floats(0.4, 0.8),
    st.one_of(st.just(UNKNOWN), st.tuples(st.floats(0.05, 0.1), st.floats(0.05, 0.1))),
)
@settings(deadline=None, max_examples=60)
def test_an_outline_survives_the_way_there_and_back(shape, height, width, spacing):
    mask = ellipse(shape, height, width)
    small = pipeline.letterbox(mask.astype(np.uint8) * 255, (96, 128), spacing)
    back = pipeline.undo_letterbox(small.astype(np.float32) / 255, shape, spacing)
    assert back.shape == shape and back.dtype == np.float32
    again = back >= 0.5
    assert 2 * (mask & again).sum() / (mask.sum() + again.sum()) >= 0.95


@pytest.mark.parametrize("spacing, shape", [((0.05, 0.10), (400, 300)), ((0.10, 0.05), (200, 700)),
                                            ((0.2, 0.2), (90, 110))])  # fmt: skip
def test_what_is_round_in_the_body_is_round_after_letterboxing(spacing, shape):
    """A round lesion of 6 mm on pixels that are no squares: as high as wide within a pixel."""
    y, x = (np.arange(side) - (side - 1) / 2 for side in shape)
    lesion = np.hypot(y[:, None] * spacing[0], x[None] * spacing[1]) <= 6
    boxed = pipeline.letterbox(lesion.astype(np.uint8) * 255, (96, 128), spacing) >= 128
    height, width = boxed.any(1).sum(), boxed.any(0).sum()
    assert abs(int(height) - int(width)) <= 1 and height > 30
    squares = pipeline.letterbox(lesion.astype(np.uint8) * 255, (96, 128), UNKNOWN) >= 128
    stretched = squares.any(1).sum() / squares.any(0).sum()
    assert stretched == pytest.approx(spacing[1] / spacing[0], rel=0.05)
    back = pipeline.undo_letterbox(boxed.astype(np.float32), shape, spacing) >= 0.5
    assert back.shape == shape
    assert 2 * (back & lesion).sum() / (back.sum() + lesion.sum()) >= 0.95


@pytest.mark.parametrize("unknown", [UNKNOWN, (0.1, math.nan), (math.nan, 0.1), (0.0, 0.1), (math.inf, 0.1)])
def test_pixels_of_unknown_size_are_taken_as_squares(unknown):
    pixels = np.random.default_rng(0).integers(1, 256, (40, 30), dtype=np.uint8)
    np.testing.assert_array_equal(pipeline.letterbox(pixels, SIZE, unknown), pipeline.letterbox(pixels, SIZE))
    assert pipeline.square_shape((40, 30), unknown) == (40, 30) == pipeline.square_shape((40, 30), (0.3, 0.3))
    assert pipeline.square_shape((40, 30), (0.05, 0.1)) == (40, 60)  # pixels as small as their finer side


def test_letterbox_keeps_what_fits_and_puts_black_around_it():
    pixels = np.random.default_rng(0).integers(1, 256, (32, 20), dtype=np.uint8)
    boxed = pipeline.letterbox(pixels, SIZE)
    np.testing.assert_array_equal(boxed[:, 14:34], pixels)
    assert not boxed[:, :14].any() and not boxed[:, 34:].any()
    np.testing.assert_array_equal(pipeline.undo_letterbox(boxed.astype(np.float32), (32, 20)), pixels)
    shrunk = pipeline.letterbox(np.tile(np.array([0, 255], np.uint8), (64, 48)), SIZE)
    assert abs(shrunk[:, 1:-1].astype(int) - 128).max() <= 1  # stripes finer than a pixel become grey, not moiré


def test_reference_and_reader_labels():
    half, other = np.zeros((32, 48), bool), np.zeros((32, 48), bool)
    half[:, :24] = other[:16] = True
    read = record("read", (32, 48), mask=half, grade=3, reader_masks=(half, other), reader_grades=(1, 1, 2, 3))
    plain = record("plain", (32, 48), mask=other, grade=0)
    reference = pipeline.load([read, plain], 4, SIZE).batch
    readers = pipeline.load([read, plain], 4, SIZE, reader="mean").batch
    np.testing.assert_array_equal(reference.mask, np.stack([half, other]) * 255)
    np.testing.assert_array_equal(reference.grade, np.eye(4)[[3, 0]])
    np.testing.assert_array_equal(readers.mask[0], np.rint(127.5 * half + 127.5 * other))
    np.testing.assert_array_equal(readers.mask[1], other * 255)
    np.testing.assert_allclose(readers.grade, [[0, 0.5, 0.25, 0.25], [1, 0, 0, 0]])
    np.testing.assert_array_equal(readers.image, reference.image)


def halves():
    """Two outlines of 32 x 48 pixels, the left half and the upper half."""
    left, upper = np.zeros((32, 48), bool), np.zeros((32, 48), bool)
    left[:, :24] = upper[:16] = True
    return left, upper


def test_one_reader_is_chosen_by_number():
    left, upper = halves()
    records = [
        record("two", (32, 48), mask=left, grade=3, reader_masks=(left, upper), reader_grades=(1, 2)),
        record("one", (32, 48), mask=left, grade=0, reader_masks=(left,), reader_grades=(0,)),
        record("none", (32, 48), mask=upper, grade=3),
    ]
    second = pipeline.load(records, 4, SIZE, reader="1")
    np.testing.assert_array_equal(second.batch.mask, np.stack([upper, upper & False, upper]) * 255)
    np.testing.assert_array_equal(second.batch.grade, [[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    assert second.batch.mask_valid.tolist() == second.batch.grade_valid.tolist() == [True, False, True]
    assert second.batch.radiomics_valid.tolist() == [True, False, True] and second.readers == {1}


def test_a_sampled_reader_gives_outline_and_grade_together():
    left, upper = halves()
    records = [
        record("two", (32, 48), mask=left, grade=0, reader_masks=(left, upper), reader_grades=(1, 2)),
        record("none", (32, 48), mask=upper, grade=3),
        record("unlabelled", (32, 48), mask=None, grade=None),
    ]
    loaded = pipeline.load(records, 4, SIZE, reader="sample")
    assert loaded.readers == {1}  # no mean of outlines is ever seen
    for draws, reader in (((0, 0, 0), 0), ((1, 1, 1), 1), ((6, 5, 4), 0), ((7, 3, 9), 1)):
        batch = pipeline.take(loaded, [0, 1, 2], 4, draws)
        np.testing.assert_array_equal(batch.mask[:2], np.stack([(left, upper)[reader], upper]) * 255)
        assert batch.grade[:2].argmax(1).tolist() == [1 + reader, 3] and batch.grade[:2].sum(1).tolist() == [1, 1]
        assert batch.mask_valid.tolist() == batch.grade_valid.tolist() == [True, True, False, False]
        assert not batch.mask[2:].any() and not batch.grade[2:].any()
    np.testing.assert_array_equal(loaded.batch.mask[0], left * 255)  # and the examples stay as they were


def test_every_epoch_samples_a_reader_anew_and_a_resumed_run_samples_the_same():
    left, upper = halves()
    records = [
        record(f"{i}", (32, 48), mask=left, grade=0, reader_masks=(left, upper), reader_grades=(0, 1)) for i in range(6)
    ]
    loaded = pipeline.load(records, 2, SIZE, reader="sample")
    batches = pipeline.TrainingBatches(loaded, 3, seed=1)
    seen, positions = [], []
    for _ in range(40):
        batch = next(batches)
        upper_half = (batch.mask == upper * np.uint8(255)).all((1, 2))
        np.testing.assert_array_equal(upper_half, batch.grade[:, 1] == 1)
        seen.append(upper_half.tolist())
        positions.append(batches.state())
    assert 0.35 < np.mean(seen) < 0.65 and len({str(seen[i : i + 2]) for i in range(0, 40, 2)}) > 10
    again = pipeline.TrainingBatches(loaded, 3, seed=1)
    again.restore(positions[24])
    for expected in seen[25:]:
        assert (next(again).mask == upper * np.uint8(255)).all((1, 2)).tolist() == expected


def test_several_data_sets_are_mixed_by_weight_times_size():
    small, large = (
        some._replace(batch=some.batch._replace(grade=np.zeros((len(some.cases), 2), np.float32)))
        for some in (numbered(10), numbered(30))
    )
    mixed = pipeline.joined([small, large], [2.0, 0.5])
    assert mixed.per_epoch == 20 + 15 and mixed.shares == ((10, 2.0), (30, 0.5))
    assert mixed.cases == small.cases + large.cases
    marked = mixed._replace(batch=mixed.batch._replace(malignant=np.arange(40, dtype=np.float32)))
    batches = pipeline.TrainingBatches(marked, 7, seed=3)
    rows = np.concatenate([next(batches).malignant for _ in range(60)]).astype(int)  # 12 epochs of 35
    assert len(rows) == 420  # not one batch is padded
    counts = np.bincount(rows, minlength=40)
    assert counts[:10].sum() == pytest.approx(240, abs=2) and set(counts[:10]) <= {23, 24, 25}
    assert counts[10:].sum() == pytest.approx(180, abs=2) and set(counts[10:]) <= {5, 6, 7}
    position = batches.state()
    following = [next(batches).malignant.tolist() for _ in range(5)]
    again = pipeline.TrainingBatches(marked, 7, seed=3)
    again.restore(position)
    assert [next(again).malignant.tolist() for _ in range(5)] == following


def test_data_sets_with_different_numbers_of_readers_are_joined():
    left, upper = halves()
    two = record("two", (32, 48), grade=1, reader_masks=(left, upper), reader_grades=(0, 1))
    whole = record("none", (32, 48), mask=left | upper, grade=0)
    parts = [pipeline.load([each], 2, SIZE, reader="sample") for each in (two, whole)]
    batch = pipeline.take(pipeline.joined(parts, [1.0, 1.0]), [0, 1], 2, [3, 3])
    np.testing.assert_array_equal(batch.mask, np.stack([upper, left | upper]) * 255)
    np.testing.assert_array_equal(batch.grade, [[0, 1], [1, 0]])


def test_outlines_and_grades_may_come_from_different_numbers_of_readers():
    left, upper = halves()
    one = record("one", (32, 48), reader_masks=(left, upper, left), reader_grades=(0, 1))
    loaded = pipeline.load([one], 2, SIZE, reader="sample")
    for draw in range(12):
        batch = pipeline.take(loaded, [0], 1, [draw])
        np.testing.assert_array_equal(batch.mask[0], (left, upper, left)[draw % 3] * 255)
        assert batch.grade[0].tolist() == [[1, 0], [0, 1]][draw % 2]


def test_the_sets_of_a_mix_are_shuffled_differently():
    mixed = pipeline.joined([numbered(8), numbered(8)], [1.0, 1.0])
    marked = mixed._replace(batch=mixed.batch._replace(malignant=np.arange(16, dtype=np.float32)))
    batches = pipeline.TrainingBatches(marked, 16, seed=5)
    rows = next(batches).malignant.astype(int).tolist()
    assert [row for row in rows if row < 8] != [row - 8 for row in rows if row >= 8]


@pytest.mark.parametrize("also", ["ddti", "tn3k:", "tn3k:0", "tn3k:nan", "TN3K", "tn3k:200", "../tn3k"])
def test_a_data_set_to_add_is_named_once_and_its_weight_is_a_number(also):
    with pytest.raises(InputError, match=r"data\.also"):
        pipeline.DataConfig(also=(also,))


def test_which_readers_can_be_asked_for():
    assert pipeline.DataConfig(also=("tn3k:0.5", "tn5000")).added == (("tn3k", 0.5), ("tn5000", 1.0))
    for reader in ("mean", "sample", "reference", "0", "12"):
        assert pipeline.DataConfig(reader=reader).reader == reader
    for reader in ("readers", "-1", "1.0", "", "²", "1000"):
        with pytest.raises(InputError, match=r"data\.reader"):
            pipeline.DataConfig(reader=reader)


def test_missing_labels_are_flags():
    records = [
        record("all", malignant=True),
        record("no mask", mask=None, malignant=False),
        record("no grade", grade=None),
    ]
    batch, cases, *_ = pipeline.load(records, 3, SIZE)
    assert cases == ("all", "no mask", "no grade")
    assert batch.mask_valid.tolist() == [True, False, True] == batch.radiomics_valid.tolist()
    assert batch.grade_valid.tolist() == [True, True, False]
    assert batch.malignant_valid.tolist() == [True, True, False]
    assert batch.malignant.tolist() == [1, 0, 0]
    assert batch.example_valid.all() and not batch.mask[1].any() and not batch.grade[2].any()
    assert batch.extra == {}


def test_without_any_label_all_flags_are_false_and_the_shapes_stay():
    batch, *_ = pipeline.load([record(mask=None, grade=None)], 4, SIZE, reader="mean")
    assert batch.mask.shape == (1, *SIZE) and batch.grade.shape == (1, 4) and batch.malignant.shape == (1,)
    flags = (batch.mask_valid, batch.grade_valid, batch.malignant_valid, batch.radiomics_valid)
    assert not any(flag.any() for flag in flags)


def test_images_and_masks_stay_bytes_of_square_pixels():
    records = [record("a", (60, 80), 1), record("b", (100, 50), 2, spacing=(0.05, 0.1))]
    batch = pipeline.load(records, 2, SIZE).batch
    assert batch.image.dtype == batch.mask.dtype == np.uint8
    assert batch.image.shape == (2, *SIZE, 1) and batch.mask.shape == (2, *SIZE)
    for row, each in enumerate(records):
        np.testing.assert_array_equal(batch.image[row, ..., 0], pipeline.letterbox(each.image, SIZE, each.spacing))
        outline = pipeline.letterbox(each.mask.astype(np.uint8) * 255, SIZE, each.spacing)
        np.testing.assert_array_equal(batch.mask[row], outline)
    assert (batch.image[1, ..., 0].any(1).sum(), batch.image[1, ..., 0].any(0).sum()) == (32, 32)  # 5 mm x 5 mm


def test_labels_of_further_tasks_are_read_from_the_records():
    depth = {"a": 0.5, "c": 2.0}
    extra = {
        "depth": lambda record: None if record.case not in depth else np.array(depth[record.case], np.float32),
        "sides": lambda record: np.array(record.image.shape),
        "nobodys": lambda record: None,
    }
    records = [record("a", (60, 80)), record("b", (40, 50)), record("c", (30, 20))]
    loaded = pipeline.load(records, 2, SIZE, extra=extra)
    assert set(loaded.batch.extra) == {"depth", "sides"}  # a task without any label is left out
    assert loaded.batch.extra["depth"].value.tolist() == [0.5, 0, 2]
    assert loaded.batch.extra["depth"].valid.tolist() == [True, False, True]
    assert loaded.batch.extra["sides"].value.tolist() == [[60, 80], [40, 50], [30, 20]]
    taken = pipeline.take(loaded, [2, 1], 3).extra
    assert taken["sides"].value.tolist() == [[30, 20], [40, 50], [0, 0]]
    assert taken["sides"].valid.tolist() == [True, True, False] and taken["depth"].valid.tolist() == [
        True,
        False,
        False,
    ]


def test_how_many_outlines_a_training_mask_is_the_mean_of():
    mask = ellipse((60, 80))
    records = [record("two", reader_masks=(mask, mask)), record("three", reader_masks=(mask,) * 3), record("none")]
    assert pipeline.load(records, 2, SIZE, reader="mean").readers == {1, 2, 3}
    assert pipeline.load(records[:1], 2, SIZE, reader="mean").readers == {2}
    assert pipeline.load(records, 2, SIZE, reader="reference").readers == {1}


def test_the_target_is_measured_on_the_images_as_they_are_and_scaled():
    inner = ellipse((60, 80), 0.4, 0.4)
    records = [
        record("readers", reader_masks=(inner, ellipse((60, 80)))),
        record("alone"),
        record("no mask", mask=None),
        record("too small to measure", mask=np.eye(60, 80, dtype=bool) & (np.arange(80) < 3)),
    ]
    r = len(clinical.TARGET)
    scaling = clinical.Scaling(np.linspace(-1, 1, r, dtype=np.float32), np.linspace(1, 2, r, dtype=np.float32))
    loaded = pipeline.load(records, 2, SIZE, reader="mean")
    assert not loaded.batch.radiomics.any() and loaded.batch.radiomics.shape == (4, r)
    found = pipeline.with_target(loaded, scaling, cut=0.25)
    assert found.cases == loaded.cases
    assert found.batch.radiomics_valid.tolist() == [True, True, False, False]
    assert np.isfinite(found.batch.radiomics).all() and not found.batch.radiomics[2:].any()
    image, mask = loaded.batch.image[..., 0].astype(np.float32) / 255, loaded.batch.mask.astype(np.float32) / 255
    values, _ = clinical.target(image, mask, cut=0.25)
    scaled = np.clip((np.asarray(values) - scaling.centre) / scaling.spread, -3, 3)
    np.testing.assert_allclose(found.batch.radiomics[:2], scaled[:2], rtol=1e-5, atol=1e-5)
    both_drew = pipeline.with_target(loaded, scaling, cut=0.75).batch.radiomics
    assert np.abs(both_drew[0] - found.batch.radiomics[0]).max() > 0.01
    np.testing.assert_allclose(
        both_drew[1, 0], found.batch.radiomics[1, 0], atol=0.2
    )  # one reader: the cut hardly matters


def test_measuring_in_chunks_or_from_floats_changes_nothing():
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (5, *SIZE), dtype=np.uint8)
    mask = np.stack([ellipse(SIZE, 0.3 + 0.1 * i, 0.5) for i in range(5)]).astype(np.uint8) * 255
    whole, chunked = pipeline.measure(image, mask), pipeline.measure(image, mask, chunk=2)
    np.testing.assert_allclose(chunked[0], whole[0], rtol=1e-5, atol=1e-6)
    assert whole[0].shape == (5, len(clinical.TARGET)) and chunked[1].all() and whole[1].all()
    shares = pipeline.measure(image / np.float32(255), mask / np.float32(255), chunk=2)
    np.testing.assert_allclose(shares[0], whole[0], rtol=1e-4, atol=1e-5)


def test_an_empty_part_is_refused():
    with pytest.raises(InputError, match="holds no record"):
        pipeline.load([], 3, SIZE)


@pytest.mark.parametrize("count, size", [(10, 4), (8, 4), (3, 8), (7, 1)])
def test_every_example_comes_once_an_epoch_in_a_new_order(count, size):
    steps = pipeline.steps_per_epoch(count, size)
    batches = pipeline.TrainingBatches(numbered(count), size, seed=0)
    epochs = []
    for _ in range(3):
        drawn = [next(batches) for _ in range(steps)]
        assert all(batch.image.shape == (size, 2, 2, 1) for batch in drawn)
        assert [int(batch.example_valid.sum()) for batch in drawn] == [size] * (steps - 1) + [
            count - size * (steps - 1)
        ]
        epochs.append([number for batch in drawn for number in numbers(batch)])
        assert sorted(epochs[-1]) == list(range(count))
    assert len({tuple(epoch) for epoch in epochs}) == 3 or count == 3


def test_no_thread_outlives_the_batches():
    before = set(threading.enumerate())
    next(pipeline.TrainingBatches(numbered(20), 4, seed=0))
    assert set(threading.enumerate()) <= before


def test_the_order_follows_from_the_seed():
    def order(seed):
        return [numbers(batch) for batch in islice(pipeline.TrainingBatches(numbered(20), 4, seed=seed), 10)]

    assert order(1) == order(1) != order(2)


@pytest.mark.parametrize("after", [0, 1, 3, 4, 7])
def test_a_restored_position_goes_on_identically(after):
    batches = pipeline.TrainingBatches(numbered(10), 4, seed=5)
    for _ in range(after):
        next(batches)
    position = json.loads(json.dumps(batches.state()))
    expected = [numbers(batch) for batch in islice(batches, 6)]
    fresh = pipeline.TrainingBatches(numbered(10), 4, seed=5)
    fresh.restore(position)
    assert [numbers(batch) for batch in islice(fresh, 6)] == expected
    fresh.restore(position)  # also backwards, on a stream that has moved
    assert [numbers(batch) for batch in islice(fresh, 6)] == expected


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_prefetch_pairs_a_batch_with_the_position_right_after_it(ahead):
    expected = [numbers(batch) for batch in islice(pipeline.TrainingBatches(numbered(10), 4, seed=5), 12)]
    put = []

    def count(batch):
        put.append(batch)
        return batch

    stream = pipeline.prefetch(pipeline.TrainingBatches(numbered(10), 4, seed=5), count, ahead=ahead)
    for step in range(8):
        batch, position = next(stream)
        assert numbers(batch) == expected[step]
        assert len(put) == step + 1 + ahead
        resumed = pipeline.TrainingBatches(numbered(10), 4, seed=5)
        resumed.restore(position)
        assert numbers(next(resumed)) == expected[step + 1]


def test_evaluation_goes_through_the_cases_in_order_with_a_padded_last_batch():
    batches = list(pipeline.evaluation_batches(numbered(7), 3))
    assert [numbers(batch) for batch, _ in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [cases for _, cases in batches] == [
        ("case 0", "case 1", "case 2"),
        ("case 3", "case 4", "case 5"),
        ("case 6",),
    ]
    assert batches[-1][0].example_valid.tolist() == [True, False, False]


@pytest.mark.parametrize("sampled", [False, True])
def test_the_parts_of_several_processes_are_the_rows_of_the_whole_batches(sampled):
    """Also of a last batch that is shorter than a part, with each reader drawn alike, and from any position."""
    examples = numbered(9)  # batches of 8 and 1 rows: the fourth part of the second one is padding
    if sampled:
        two = np.stack([examples.batch.mask, 100 + examples.batch.mask], axis=1)
        grades = np.stack([examples.batch.grade, examples.batch.grade], axis=1)
        examples = examples._replace(sampled=pipeline.ReaderLabels(two, grades, np.full(9, 2), np.full(9, 2)))
    whole = pipeline.TrainingBatches(examples, 8, seed=2)
    parts = [pipeline.TrainingBatches(examples, 8, seed=2, part=(place, 4)) for place in range(4)]
    for _ in range(5):
        expected, found = next(whole), [next(part) for part in parts]
        assert all(part.state() == whole.state() for part in parts)
        assert [len(part.image) for part in found] == [2, 2, 2, 2]
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)
        jax.tree.map(np.testing.assert_array_equal, joined, expected)
    parts[1].restore(whole.state())
    np.testing.assert_array_equal(next(parts[1]).image, next(whole).image[2:4])
