"""Groups are joined by equal and nearly equal images; every change that copies of ultrasound pictures show is made."""

import functools
import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from thyroid_jax.data import duplicates
from thyroid_jax.data.duplicates import (
    Pair,
    conflicts,
    merge_groups,
    merge_pairs,
    near_pairs,
    near_pairs_between,
    signature,
)
from thyroid_jax.data.overlap import pictures_of, shared_images
from thyroid_jax.data.record import Record

H, W = 300, 400


def test_groups_that_share_an_image_are_joined_also_by_way_of_others():
    groups = ["a", "b", "b", "c", "d", "c", "e"]
    contents = ["1", "1", "2", "2", "3", "4", "5"]
    assert merge_groups(groups, contents) == ["a", "a", "a", "a", "d", "a", "e"]


def test_without_duplicates_nothing_changes():
    assert merge_groups(["x", "y", "x"], ["1", "2", "3"]) == ["x", "y", "x"]
    assert merge_groups([], []) == []


def test_the_name_is_the_first_group_whatever_the_order_of_joins():
    assert merge_groups(["z", "m", "a", "m"], ["1", "2", "1", "1"]) == ["z"] * 4


def test_a_long_chain():
    n = 5000
    groups = [str(i // 2) for i in range(2 * n)]
    contents = [str((i + 1) // 2) for i in range(2 * n)]
    assert set(merge_groups(groups, contents)) == {"0"}


def test_unequal_lengths():
    with pytest.raises(ValueError, match="2 groups but 1"):
        merge_groups(["a", "b"], ["1"])


def test_pairs_join_their_groups_with_all_their_records():
    groups = ["c", "b", "b", "a", "d"]
    assert merge_pairs(groups, [Pair(2, 3, 0.9, False)]) == ["c", "b", "b", "b", "d"]
    assert merge_pairs(groups, [Pair(2, 3, 0.9, False), Pair(0, 3, 0.6, True)]) == ["c", "c", "c", "c", "d"]
    assert merge_pairs(groups, []) == groups


@functools.cache
def speckle(seed: int, *, height: int = H, width: int = W) -> np.ndarray:
    """A picture of speckle in layered tissue that gets darker with depth, as all ultrasound pictures do."""
    random = np.random.default_rng(seed)
    tissue = gaussian_filter(random.normal(size=(height, width)), (6, 20))
    echo = np.abs(gaussian_filter(random.normal(size=(height, width)), (1, 2)))
    grey = 40 + 25 * tissue / tissue.std() + 20 * echo / echo.std()
    picture = np.clip(grey * np.linspace(1.6, 0.4, height)[:, None], 0, 255).astype(np.uint8)
    picture.flags.writeable = False
    return picture


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def toned(image: np.ndarray, contrast: float, brightness: float) -> np.ndarray:
    return np.clip(image * contrast + brightness, 0, 255).astype(np.uint8)


def resized(image: np.ndarray, factor: float) -> np.ndarray:
    height, width = image.shape
    return np.asarray(Image.fromarray(image).resize((round(width * factor), round(height * factor))))


def with_callipers(image: np.ndarray) -> np.ndarray:
    image = image.copy()
    for y, x in ((90, 120), (95, 280), (60, 200), (150, 205)):
        image[y - 1 : y + 1, x - 8 : x + 8] = image[y - 8 : y + 8, x - 1 : x + 1] = 255
    image[260:275, 20:90:3] = 255  # letters
    return image


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """The same scene through a window that was moved by some pixels."""
    return image[down : down + H - 10, right : right + W - 10]


def framed(image: np.ndarray, above: int, left: int) -> np.ndarray:
    return np.pad(image, ((above, 10), (left, 40)))


CHANGES = {
    "shift 1 px": lambda image: shifted(image, 1, 1),
    "shift 3 px": lambda image: shifted(image, 3, 0),
    "crop 2 %": lambda image: image[: round(0.98 * H), round(0.02 * W) :],
    "crop 5 %": lambda image: image[round(0.05 * H) :, : round(0.95 * W)],
    "crop 8 % of one side": lambda image: image[: round(0.92 * H)],
    "JPEG": lambda image: jpeg(image, 40),
    "brighter": lambda image: toned(image, 1, 25),
    "less contrast": lambda image: toned(image, 0.6, 10),
    "half the size": lambda image: resized(image, 0.5),
    "callipers": with_callipers,
    "black frame": lambda image: framed(image, 30, 70),
    "all": lambda image: jpeg(toned(with_callipers(image)[6:, :-12], 0.8, 8), 60),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_changed_copy_is_found_and_nothing_else(change, mirrored):
    original = [speckle(seed) for seed in range(6)]
    changed = CHANGES[change](original[3])
    copy = changed[:, ::-1] if mirrored else changed
    (pair,) = near_pairs(np.stack([signature(image) for image in [*original, copy]]))
    assert (pair.i, pair.j, pair.mirrored) == (3, 6, mirrored)
    assert pair.correlation > 0.85


@pytest.mark.parametrize("turn", [3, 5])
def test_a_turned_copy_is_missed(turn):
    """A limit that the documentation states: the registration scales and shifts, it does not turn."""
    image = speckle(0)
    turned = np.asarray(Image.fromarray(image).rotate(turn, Image.Resampling.BILINEAR))
    assert near_pairs(np.stack([signature(image), signature(turned)])) == []


def sector() -> np.ndarray:
    """bool[h w] of a sector, the field of view of a curved probe."""
    y, x = np.mgrid[:H, :W]
    radius, angle = np.hypot(y + 60, x - W / 2), np.arctan2(x - W / 2, y + 60)
    return (radius > 80) & (radius < 340) & (np.abs(angle) < 0.5)


@pytest.mark.parametrize("frame", ["none", "sector", "text"])
def test_independent_speckle_in_the_same_frame_is_not_found(frame):
    images = [speckle(seed) for seed in range(40)]
    if frame == "sector":
        images = [np.where(sector(), image, 0).astype(np.uint8) for image in images]
    if frame == "text":
        images = [image.copy() for image in images]
        for image in images:
            image[10:24, 20:120:3] = image[:, 380:384] = image[40:44, 300:330] = 255
    found = near_pairs(np.stack([signature(image) for image in images]), at_least=0.4)
    assert found == []


def test_images_without_texture_are_in_no_pair():
    flat = [np.full((50, 60), value, np.uint8) for value in (0, 0, 7, 255)]
    ramp = np.broadcast_to(np.arange(120, dtype=np.uint8), (80, 120))
    found = near_pairs(np.stack([signature(image) for image in [*flat, np.zeros((1, 1), np.uint8)]]))
    assert found == []
    both = near_pairs(np.stack([signature(image) for image in [*flat, speckle(0), ramp]]))
    assert both == []


@functools.cache
def copies() -> np.ndarray:
    """Signatures of 12 pictures and of changed copies of the first 6."""
    originals = [speckle(seed) for seed in range(12)]
    kinds = ["shift 3 px", "crop 5 %", "JPEG", "callipers", "black frame", "all"]
    changed = [CHANGES[kind](image) for kind, image in zip(kinds, originals[:6], strict=True)]
    changed[1] = changed[1][:, ::-1]
    return np.stack([signature(image) for image in originals + changed])


def test_pairs_do_not_depend_on_the_order():
    signatures = copies()
    pairs = near_pairs(signatures)
    assert [(pair.i, pair.j, pair.mirrored) for pair in pairs] == [(k, k + 12, k == 1) for k in range(6)]
    order = np.random.default_rng(0).permutation(len(signatures))
    again = near_pairs(signatures[order])
    names = {frozenset((order[pair.i], order[pair.j])): pair for pair in again}
    assert set(names) == {frozenset((pair.i, pair.j)) for pair in pairs}
    for pair in pairs:
        other = names[frozenset((pair.i, pair.j))]
        assert other.correlation == pytest.approx(pair.correlation, abs=1e-5) and other.mirrored == pair.mirrored


def test_pairs_do_not_depend_on_the_blocks(monkeypatch):
    signatures = copies()
    whole = near_pairs(signatures)
    monkeypatch.setattr(duplicates, "BLOCK", 5)
    for one, two in zip(whole, near_pairs(signatures), strict=True):
        assert one[:2] == two[:2] and one.correlation == pytest.approx(two.correlation, abs=1e-5)


def test_exchanged_arrays_give_exchanged_pairs():
    signatures = copies()
    there = {(i, j): value for i, j, value, _ in near_pairs_between(signatures[:12], signatures[12:])}
    back = {(j, i): value for i, j, value, _ in near_pairs_between(signatures[12:], signatures[:12])}
    assert set(there) == {(k, k) for k in range(6)} == set(back)
    assert all(there[key] == pytest.approx(back[key], abs=1e-5) for key in there)


def test_a_symmetric_picture_is_not_called_mirrored():
    half = speckle(0, width=W // 2)
    image = np.concatenate([half, half[:, ::-1]], 1)
    (pair,) = near_pairs(np.stack([signature(image)] * 2))
    assert pair.correlation == pytest.approx(1, abs=1e-5) and not pair.mirrored


def test_pairs_of_one_group_are_not_looked_for():
    signatures = copies()
    groups = [str(k % 12) for k in range(18)]
    assert near_pairs(signatures, groups=groups) == []
    groups[12] = "new"
    assert [(pair.i, pair.j) for pair in near_pairs(signatures, groups=groups)] == [(0, 12)]


def test_near_groups_are_merged():
    signatures = copies()
    groups = [f"p{k // 2}" for k in range(18)]
    pairs = near_pairs(signatures, groups=groups)
    assert len(pairs) == 6
    assert merge_pairs(groups, pairs) == [f"p{k % 12 // 2}" for k in range(18)]
    assert near_pairs(signatures, groups=groups, at_least=1.1) == [] and merge_pairs(groups, []) == groups


def test_conflicting_labels_are_those_that_are_known_and_differ():
    pairs = [Pair(i, i + 1, 0.9, False) for i in range(5)]
    malignant = [True, False, None, True, True, True]
    grades = [1, 1, 2, 1, None, 1]
    assert conflicts(pairs, malignant) == pairs[:1]
    assert conflicts(pairs, malignant, grades) == pairs[:3]
    assert conflicts(pairs) == []


def test_images_shared_by_two_data_sets():
    one, two = [speckle(seed) for seed in range(4)], [speckle(seed) for seed in range(2, 7)]
    two[2] = CHANGES["crop 5 %"](one[0])[:, ::-1]
    two.append(two[0])
    flat = np.full((20, 20), 9, np.uint8)
    records = [
        [Record(f"{side}{i}", "g", "s", image) for i, image in enumerate([*images, flat])]
        for side, images in (("a", one), ("b", two))
    ]
    pictures = [pictures_of(part) for part in records]
    assert pictures[0].cases[:2] == ("a0", "a1") and pictures[1].contents[0] == records[1][0].content
    found = shared_images(*pictures)
    assert [row[:3] for row in found] == [
        (0, 2, "near"),
        (2, 0, "equal"),
        (2, 5, "equal"),
        (3, 1, "equal"),
        (4, 6, "equal"),
    ]
    assert [row.mirrored for row in found] == [True, False, False, False, False]
    assert 0.85 < found[0].correlation < 1 and {row.correlation for row in found[1:]} == {1.0}


def test_nothing_in_gives_nothing_out():
    empty = np.zeros((0, 96, 96), np.uint8)
    assert near_pairs(empty) == [] and near_pairs_between(empty, copies()) == []
    with pytest.raises(ValueError, match="no record"):
        pictures_of([])
    assert merge_pairs([], []) == []


def test_a_signature_is_a_thumbnail_of_the_lit_part():
    image = speckle(1)
    assert signature(image).shape == (96, 96) and signature(image).dtype == np.uint8
    np.testing.assert_array_equal(signature(framed(image, 50, 90)), signature(image))
    noisy = framed(image, 50, 90)
    noisy[10, 10] = 200  # one bright pixel in the black frame
    np.testing.assert_array_equal(signature(noisy), signature(image))


@pytest.mark.parametrize(
    "image", [np.zeros((0, 5), np.uint8), np.zeros((5, 5)), np.zeros((5, 5, 3), np.uint8), np.zeros(5, np.uint8)]
)
def test_a_picture_that_is_none(image):
    with pytest.raises(ValueError, match="not uint8"):
        signature(image)


@pytest.mark.parametrize("signatures", [np.zeros((3, 48, 48), np.uint8), np.zeros((3, 96, 96)), np.zeros(3, np.uint8)])
def test_signatures_that_are_none(signatures):
    with pytest.raises(ValueError, match="of signature"):
        near_pairs(signatures)


def test_lengths_that_differ():
    signatures = copies()
    with pytest.raises(ValueError, match="1 groups but 18 signatures"):
        near_pairs(signatures, groups=["a"])
