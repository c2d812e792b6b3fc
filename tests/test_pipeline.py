"""Letterboxing there and back, labels and flags, and an order of batches that a checkpoint can hold."""

import json
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thyroid_jax.data import pipeline
from thyroid_jax.data.record import Record
from thyroid_jax.errors import InputError
from thyroid_jax.radiomics import clinical

SIZE = (32, 48)
sides = st.tuples(st.integers(1, 900), st.integers(1, 900))
sizes = st.tuples(st.sampled_from([16, 32, 96]), st.sampled_from([16, 48, 128]))


def ellipse(shape, height=0.5, width=0.5):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return ((y / shape[0] - 0.5) / (height / 2)) ** 2 + ((x / shape[1] - 0.5) / (width / 2)) ** 2 <= 1


def record(case="a", shape=(60, 80), seed=0, **labels):
    image = np.random.default_rng(seed).integers(1, 256, shape, dtype=np.uint8)
    return Record(case, case, case, image, **({"mask": ellipse(shape), "grade": 1} | labels))


def numbered(count):
    """Examples whose only content is their number, in every array."""
    number = np.arange(count)
    batch = pipeline.Batch(
        image=np.broadcast_to(number[:, None, None], (count, 2, 2)).astype(np.uint8),
        mask=np.broadcast_to(number[:, None, None], (count, 2, 2)).astype(np.uint8),
        grade=np.eye(count, dtype=np.float32),
        radiomics=number[:, None].astype(np.float32),
        mask_valid=number % 2 == 0,
        grade_valid=number % 3 == 0,
        radiomics_valid=number % 5 == 0,
        example_valid=np.ones(count, bool),
    )
    return pipeline.Examples(batch, tuple(f"case {i}" for i in number))


def numbers(batch):
    """Which examples a batch of `numbered` holds, after checking that all of its arrays and flags agree and its padding
    is empty.
    """
    rows = [int(row) for row in batch.radiomics[batch.example_valid, 0]]
    empty = ~batch.example_valid
    assert not any(np.asarray(values)[empty].any() for values in batch)
    np.testing.assert_allclose(batch.image[~empty, 0, 0, 0] * 255, rows, rtol=1e-6)
    np.testing.assert_allclose(batch.mask[~empty, 1, 1] * 255, rows, rtol=1e-6)
    assert batch.grade[~empty].argmax(-1).tolist() == rows
    for flags, step in ((batch.mask_valid, 2), (batch.grade_valid, 3), (batch.radiomics_valid, 5)):
        assert flags[~empty].tolist() == [row % step == 0 for row in rows]
    return rows


@given(sides, sizes)
@settings(deadline=None, max_examples=200)
def test_letterbox_geometry_is_inside_centred_and_true_to_the_aspect(shape, size):
    top, left, height, width = pipeline.letterbox_geometry(shape, size)
    assert 0 <= top and 1 <= height and top + height <= size[0]
    assert 0 <= left and 1 <= width and left + width <= size[1]
    assert height == size[0] or width == size[1]
    assert abs((size[0] - height) - 2 * top) <= 1 and abs((size[1] - width) - 2 * left) <= 1
    scale = min(size[0] / shape[0], size[1] / shape[1])
    assert abs(height - max(1, scale * shape[0])) <= 0.5 and abs(width - max(1, scale * shape[1])) <= 0.5


@given(st.tuples(st.integers(40, 200), st.integers(40, 200)), st.floats(0.3, 0.8), st.floats(0.3, 0.8))
@settings(deadline=None, max_examples=40)
def test_an_outline_survives_the_way_there_and_back(shape, height, width):
    mask = ellipse(shape, height, width)
    size = (96, 128)
    small = pipeline.letterbox(mask.astype(np.uint8) * 255, size)
    back = pipeline.undo_letterbox(small.astype(np.float32) / 255, shape)
    assert back.shape == shape and back.dtype == np.float32
    again = back >= 0.5
    assert 2 * (mask & again).sum() / (mask.sum() + again.sum()) > 0.97


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
    readers = pipeline.load([read, plain], 4, SIZE, labels="readers").batch
    np.testing.assert_array_equal(reference.mask, np.stack([half, other]) * 255)
    np.testing.assert_array_equal(reference.grade, np.eye(4)[[3, 0]])
    np.testing.assert_array_equal(readers.mask[0], np.rint(127.5 * half + 127.5 * other))
    np.testing.assert_array_equal(readers.mask[1], other * 255)
    np.testing.assert_allclose(readers.grade, [[0, 0.5, 0.25, 0.25], [1, 0, 0, 0]])
    np.testing.assert_array_equal(readers.image, reference.image)


def test_missing_labels_are_flags():
    records = [
        record("all"),
        record("no mask", mask=None),
        record("no grade", grade=None),
        record("too small to measure", mask=np.eye(60, 80, dtype=bool) & (np.arange(80) < 3)),
    ]
    batch, cases = pipeline.load(records, 3, SIZE)
    assert cases == ("all", "no mask", "no grade", "too small to measure")
    assert batch.mask_valid.tolist() == [True, False, True, True]
    assert batch.grade_valid.tolist() == [True, True, False, True]
    assert batch.radiomics_valid.tolist() == [True, False, True, False]
    assert batch.example_valid.all() and not batch.mask[1].any() and not batch.grade[2].any()
    assert np.isfinite(batch.radiomics).all() and batch.radiomics.shape == (4, len(clinical.TARGET))


def test_load_measures_what_it_letterboxed_and_device_ranges_are_shares():
    examples = pipeline.load([record("a", (60, 80), 1), record("b", (100, 50), 2)], 2, SIZE)
    batch = examples.batch
    assert batch.image.dtype == batch.mask.dtype == np.uint8 and batch.image.shape == (2, *SIZE)
    np.testing.assert_array_equal(batch.image[1], pipeline.letterbox(record("b", (100, 50), 2).image, SIZE))
    values, _ = clinical.target(batch.image.astype(np.float32) / 255, batch.mask >= 128)
    np.testing.assert_allclose(batch.radiomics, values, rtol=1e-5, atol=1e-6)
    ready = pipeline.to_device_ranges(batch)
    assert ready.image.shape == (2, *SIZE, 1) and ready.image.dtype == ready.mask.dtype == np.float32
    np.testing.assert_allclose(ready.image[..., 0] * 255, batch.image, rtol=1e-6)
    assert ready.mask.max() == 1.0


def test_measuring_in_chunks_changes_nothing():
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (5, *SIZE), dtype=np.uint8)
    mask = np.stack([ellipse(SIZE, 0.3 + 0.1 * i, 0.5) for i in range(5)]).astype(np.uint8) * 255
    whole, chunked = pipeline.measure(image, mask), pipeline.measure(image, mask, chunk=2)
    np.testing.assert_allclose(chunked[0], whole[0], rtol=1e-5, atol=1e-6)
    assert whole[0].shape == (5, len(clinical.TARGET)) and chunked[1].tolist() == whole[1].tolist() == [True] * 5


def test_the_target_is_scaled_on_the_host():
    scaling = clinical.Scaling(np.float32([1.0]), np.float32([2.0]))
    scaled = pipeline.scale_radiomics(numbered(9), scaling).batch.radiomics
    assert isinstance(scaled, np.ndarray) and scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[:, 0], np.clip((np.arange(9) - 1) / 2, -3, 3))


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
