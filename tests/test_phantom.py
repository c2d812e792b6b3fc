"""Phantoms: the geometry, the physics and the readers are what their docstrings say, as numbers."""

import itertools
from collections import Counter
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_prep.phantom import dataset, descriptors, outline, readers, rendering
from thyroid_jax import tirads
from thyroid_jax.data.record import Notes
from thyroid_jax.errors import InputError

SIZE = (64, 64)
LARGE = (160, 200)


def render_patients(seed):
    """16 patients with 2 views each, by the function that renders data sets, so that it is compiled once."""
    patients, views = (grid.ravel() for grid in np.meshgrid(np.arange(16), np.arange(2), indexing="ij"))
    chunk = dataset._render_chunk(jax.random.key(seed), patients, views, SIZE)
    return jax.tree.map(lambda leaf: leaf.reshape(16, 2, *leaf.shape[1:]), chunk)


@cache
def phantoms():
    return render_patients(0)


def finding(composition="solid", echogenicity="isoechoic", shape="wider than tall", margin="smooth", foci=()):
    indices = (
        descriptors.COMPOSITIONS.index(composition),
        descriptors.ECHOGENICITIES.index(echogenicity),
        descriptors.SHAPES.index(shape),
        descriptors.MARGINS.index(margin),
    )
    return descriptors.Descriptors(
        *(jnp.array(i) for i in indices), jnp.array([int(kind in foci) for kind in descriptors.FOCI])
    )


sample_scene = jax.jit(outline.sample_scene, static_argnames="size")


@jax.jit
def _scenes_and_images(keys, descriptors):
    """Image, mask and scene of the same nodules for 24 keys, drawn as ``render`` draws them."""
    scenes = jax.vmap(lambda key: outline.sample_scene(key, descriptors, SIZE))(keys)
    images = jax.vmap(lambda key, scene: rendering.draw(key, descriptors, scene, SIZE))(keys, scenes)
    return images, jax.vmap(lambda scene: outline.outline(scene.contour, SIZE))(scenes), scenes


def drawn(**words):
    images, masks, scenes = _scenes_and_images(jax.random.split(jax.random.key(3), 24), finding(**words))
    return np.asarray(images), np.asarray(masks) > 0, scenes


def brightness(**words):
    """Mean grey inside the nodule, well away from its edge, averaged over keys."""
    images, _, scenes = drawn(**words)
    inner = np.asarray(jax.vmap(lambda scene: outline.depth_inside(scene.contour, SIZE)[0])(scenes)) > 3.5
    return images[inner].mean()


def behind(**words):
    """Mean grey in a strip under the lower edge, in the columns of the nodule's middle."""
    images, masks, scenes = drawn(**words)
    values = []
    for image, mask, column in zip(images, masks, np.asarray(scenes.contour.centre)[:, 1]):
        for j in range(int(column) - 2, int(column) + 3):
            last = np.flatnonzero(mask[:, j]).max()
            values.append(image[last + 3 : last + 8, j].mean())
    return float(np.mean(values))


# Grades.


def test_points_agree_with_the_chart_for_every_combination_of_words():
    choices = itertools.product(*map(range, (5, 6, 2, 5)), itertools.product((0, 1), repeat=4))
    rows = [(*axes, flags) for *axes, flags in choices]
    stacked = descriptors.Descriptors(*(jnp.array([row[i] for row in rows]) for i in range(5)))
    expected = [
        tirads.points(
            descriptors.COMPOSITIONS[c],
            descriptors.ECHOGENICITIES[e],
            descriptors.SHAPES[s],
            descriptors.MARGINS[m],
            tuple(k for k, flag in zip(descriptors.FOCI, flags) if flag),
        )
        for c, e, s, m, flags in rows
    ]
    np.testing.assert_array_equal(jax.vmap(descriptors.points)(stacked), expected)


def test_sampled_findings_are_consistent_and_their_levels_balanced():
    many = jax.jit(jax.vmap(descriptors.sample_descriptors))(jax.random.split(jax.random.key(0), 4000))
    totals = jax.vmap(descriptors.points)(many)
    counts = np.bincount(np.asarray(tirads.level(totals)), minlength=5)
    np.testing.assert_allclose(counts / 4000, 0.2, atol=4 * np.sqrt(0.2 * 0.8 / 4000))
    seen = Counter()
    for i in range(600):
        words = descriptors.words(jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], many))
        kinds = () if words["foci"] == "none" else tuple(words["foci"].split(", "))
        assert (
            tirads.points(words["composition"], words["echogenicity"], words["shape"], words["margin"], kinds)
            == totals[i]
        )
        assert (words["echogenicity"] == "anechoic") == (words["composition"] == "cystic")
        assert "unclear" not in words.values()
        seen.update([*list(words.values())[:4], *kinds])
    drawable = {
        *descriptors.COMPOSITIONS,
        *descriptors.ECHOGENICITIES,
        *descriptors.SHAPES,
        *descriptors.MARGINS,
        *descriptors.FOCI,
    } - {"unclear"}
    assert set(seen) == drawable  # each finding turns up


# Outline.


@pytest.mark.parametrize("margin", ["smooth", "lobulated or irregular", "extrathyroidal extension"])
@pytest.mark.parametrize("shape", descriptors.SHAPES)
def test_mask_area_is_the_integral_of_the_contour(shape, margin):
    scene = sample_scene(jax.random.key(1), finding(shape=shape, margin=margin), LARGE)
    angle = jnp.linspace(0, 2 * jnp.pi, 4096, endpoint=False)
    r = outline.radius(scene.contour, angle)
    area, length = jnp.pi * jnp.mean(r**2), 2 * jnp.pi * jnp.mean(r)
    assert r.min() > 0
    # Rasterisation errs by about half a pixel times the square root of the number of edge pixels.
    assert abs(outline.outline(scene.contour, LARGE).sum() - area) < 2 * jnp.sqrt(length)


def test_ellipse_without_harmonics_has_its_closed_form_area_and_axes():
    none = jnp.zeros(len(outline.ORDERS))
    contour = outline.Contour(
        jnp.array([100.0, 100.0]), jnp.array([60.0, 30.0]), jnp.zeros(()), none, none, jnp.zeros(())
    )
    mask = outline.outline(contour, (200, 200))
    assert float(mask.sum()) == pytest.approx(np.pi * 60 * 30, rel=5e-3)
    assert float(mask.any(1).sum()) == pytest.approx(120, abs=1)
    assert float(mask.any(0).sum()) == pytest.approx(60, abs=1)


@pytest.mark.parametrize(("shape", "sign"), [("taller than wide", 1), ("wider than tall", -1)])
def test_taller_means_more_spread_in_rows_than_in_columns(shape, sign):
    for margin in ("smooth", "lobulated or irregular"):
        for mask in drawn(shape=shape, margin=margin)[1]:
            rows, columns = np.nonzero(mask)
            assert sign * np.log(np.sqrt(rows.var() / columns.var())) > np.log(1.05)


def test_only_extrathyroidal_extension_crosses_the_capsule():
    def outside(margin, shape):
        _, masks, scenes = drawn(margin=margin, shape=shape)
        lobe = np.asarray(jax.vmap(lambda scene: outline.lobe_depth(scene, SIZE)[0])(scenes)) > 0
        return (masks & ~lobe).sum((1, 2)) / masks.sum((1, 2))

    for shape in descriptors.SHAPES:
        assert outside("smooth", shape).max() < 0.02
        assert outside("lobulated or irregular", shape).max() < 0.05
        assert outside("extrathyroidal extension", shape).min() > 0.10


# Picture.


def test_images_masks_and_grades_are_finite_and_in_range():
    many = phantoms()
    assert (
        many.image.shape == (16, 2, *SIZE)
        and many.reader_masks.shape == (16, 2, 2, *SIZE)
        and many.reader_grades.shape == (16, 2, 2)
    )
    assert many.image.dtype == many.mask.dtype == jnp.float32
    assert np.isfinite(many.image).all() and many.image.min() >= 0 and many.image.max() <= 1
    assert set(np.unique(many.mask)) == {0, 1} == set(np.unique(many.reader_masks))
    assert (many.mask.sum((-2, -1)) > 100).all()
    for grades in (many.level, many.reader_grades):
        assert grades.min() >= 0 and grades.max() <= 4
    np.testing.assert_array_equal(tirads.level(many.points), many.level)


def test_same_key_same_phantom_and_another_key_another():
    first, again, other = phantoms(), render_patients(0), render_patients(1)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first, again))
    assert float(jnp.abs(first.image - other.image).mean()) > 0.05


def test_several_views_are_those_of_the_batch():
    several_views = jax.jit(partial(dataset.several_views, size=SIZE, views=2))
    alone = several_views(jax.random.fold_in(jax.random.key(0), 3))
    batched = jax.tree.map(lambda leaf: leaf[3], phantoms())
    np.testing.assert_allclose(alone.image, batched.image, atol=2e-3)
    # A pixel exactly on the curve may fall on either side when operations are fused differently.
    assert jnp.sum(alone.mask != batched.mask) <= 2
    assert jnp.sum(alone.reader_masks != batched.reader_masks) <= 4
    for name in ("level", "points", "reader_grades", "descriptors"):
        jax.tree.map(np.testing.assert_array_equal, getattr(alone, name), getattr(batched, name))


def test_speckle_is_rayleigh_before_log_compression():
    size, amplitude = (192, 192), 3.0
    field = rendering.envelope(jax.random.key(0), jnp.full(size, amplitude), jnp.zeros(size))
    assert float(field.mean() / field.std()) == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.05)
    assert float((field**2).mean()) == pytest.approx(amplitude**2, rel=0.06)
    near, far = (field[1:-1] * field[:-2]).mean(), (field[9:] * field[:-9]).mean()
    assert float(near) > float(far)  # the point spread function correlates it


def test_log_compression_maps_decibels_to_grey():
    decibel = jnp.array([-200.0, -30.0, 0.0, 15.0, 30.0, 90.0])
    np.testing.assert_allclose(rendering.log_compress(10 ** (decibel / 20)), [0, 0, 0.5, 0.75, 1, 1], atol=1e-6)


def test_grey_follows_echogenicity():
    greys = [brightness(echogenicity=name) for name in ("hyperechoic", "isoechoic", "hypoechoic", "very hypoechoic")]
    greys.append(brightness(composition="cystic", echogenicity="anechoic"))
    assert (-np.diff(greys) > 0.05).all(), greys
    assert greys[-1] < 0.05


def test_composition_shows_as_share_of_fluid():
    def dark(composition):
        images, masks, _ = drawn(
            composition=composition, echogenicity="anechoic" if composition == "cystic" else "isoechoic"
        )
        return (images[masks] < 0.2).mean()

    solid, spongiform, mixed, cystic = (dark(name) for name in ("solid", "spongiform", "mixed", "cystic"))
    assert solid < 0.1 and 0.15 < spongiform < 0.6 and 0.2 < mixed < 0.7 and cystic > 0.8


def test_fluid_enhances_and_calcium_shadows_what_lies_behind():
    plain = behind()
    assert behind(composition="cystic", echogenicity="anechoic") - plain > 0.04
    assert plain - behind(foci=("macrocalcification",)) > 0.05
    assert plain - behind(foci=("peripheral",)) > 0.10
    assert abs(plain - behind(foci=("punctate",))) < 0.03


@pytest.mark.parametrize("kind", descriptors.FOCI)
def test_every_kind_of_foci_adds_bright_pixels(kind):
    base = {"composition": "mixed", "echogenicity": "hypoechoic"}
    (plain, masks, _), (images, _, _) = drawn(**base), drawn(**base, foci=(kind,))
    assert (images[masks] > 0.6).sum() > (plain[masks] > 0.6).sum() + 4 * len(images)


def test_render_at_another_size():
    size = (96, 160)
    image, mask = jax.jit(partial(rendering.render, size=size))(jax.random.key(2), finding())
    assert image.shape == mask.shape == size
    assert 0.03 < float(mask.mean()) < 0.25
    assert 0.2 < float(image.mean()) < 0.5


def test_views_of_a_patient_share_the_nodule_but_not_the_picture():
    many = phantoms()
    for leaf in jax.tree.leaves((many.descriptors, many.level, many.reader_grades)):
        np.testing.assert_array_equal(leaf[:, 0], leaf[:, 1])
    assert (jnp.abs(many.image[:, 0] - many.image[:, 1]).mean((1, 2)) > 0.03).all()
    assert (many.mask[:, 0] != many.mask[:, 1]).any((1, 2)).all()
    areas = many.mask.sum((2, 3))
    assert (jnp.abs(jnp.log(areas[:, 0] / areas[:, 1])) < 0.3).all()


# Readers.


def reader(bias=0.0, bandwidth=1e6, jitter=0.0, habit=None):
    return readers.Reader(
        *(jnp.array(value) for value in (bias, bandwidth, jitter)), jnp.eye(5) if habit is None else jnp.asarray(habit)
    )


def test_a_perfect_reader_draws_the_truth():
    contour = sample_scene(jax.random.key(1), finding(margin="lobulated or irregular"), LARGE).contour
    drawn_outline = readers.read_outline(jax.random.key(0), reader(), contour, LARGE)
    np.testing.assert_array_equal(drawn_outline, outline.outline(contour, LARGE))


@pytest.mark.parametrize("bias", [0.03, -0.03])
def test_bias_moves_the_outline_by_its_share_of_the_size(bias):
    contour = sample_scene(jax.random.key(1), finding(), LARGE).contour
    r = outline.radius(contour, jnp.linspace(0, 2 * jnp.pi, 2048, endpoint=False))
    expected = jnp.pi * jnp.mean((r + bias * min(LARGE)) ** 2)
    drawn_area = readers.read_outline(jax.random.key(0), reader(bias), contour, LARGE).sum()
    assert float(drawn_area) == pytest.approx(float(expected), rel=0.01)


def test_smoothing_removes_lobules_and_jitter_has_its_stated_size():
    angle = jnp.linspace(0, 2 * jnp.pi, 2048, endpoint=False)
    contour = sample_scene(jax.random.key(1), finding(margin="lobulated or irregular"), LARGE).contour
    flat = contour._replace(cosine=0 * contour.cosine, sine=0 * contour.sine)

    def roughness(curve):
        return float(jnp.std(outline.radius(curve, angle) / outline.radius(flat, angle)))

    assert roughness(contour) == pytest.approx(np.hypot(0.03, 0.085), rel=0.35)
    smooth = readers.read_contour(jax.random.key(0), reader(bandwidth=3.0), contour, LARGE)
    assert roughness(smooth) < 0.5 * roughness(contour)
    shaky = readers.read_contour(jax.random.key(0), reader(jitter=0.05), flat, LARGE)
    assert roughness(shaky) == pytest.approx(0.05, rel=1e-3)


def test_default_readers_disagree_outward_and_inward():
    many = phantoms()
    ratio = np.asarray(many.reader_masks.sum((3, 4)) / many.mask.sum((2, 3))[:, :, None]).mean((0, 1))
    assert 1.05 < ratio[0] < 1.35 and 0.70 < ratio[1] < 0.95


def test_grades_follow_the_habit():
    habits = readers.READERS.habit
    np.testing.assert_allclose(habits.sum(2), 1, rtol=1e-6)
    assert habits[0] @ np.arange(5) @ np.ones(5) > 10 > habits[1] @ np.arange(5) @ np.ones(5)
    keys = jax.random.split(jax.random.key(0), 2000)
    for habit, level in itertools.product(habits, range(5)):
        given = jax.vmap(
            lambda key, habit=habit, level=level: readers.read_grade(key, reader(habit=habit), jnp.array(level))
        )(keys)
        np.testing.assert_allclose(np.bincount(given, minlength=5) / 2000, habit[level], atol=0.045)


# Data set.


def test_read_streams_records_deterministically():
    notes = Notes()
    options = dataset.PhantomOptions(count=dataset.CHUNK + 3, seed=7, size=SIZE)
    records = list(dataset.read(options, notes))
    assert len(records) == notes.counts["images"] == options.count
    assert len({record.case for record in records}) == options.count == len({record.content for record in records})
    assert notes.counts["groups"] == len({record.group for record in records}) < options.count
    assert sum(notes.counts[f"grade {name}"] for name in dataset.CARD.grades) == options.count
    views = Counter(record.group for record in records)
    assert list(views)[:3] == ["p0000", "p0001", "p0002"] and set(views.values()) <= {1, 2, 3}
    for record in records:
        assert record.case.rsplit("_", 1)[0] == record.group
        assert (record.image.dtype, record.mask.dtype) == (np.uint8, bool)
        assert record.image.shape == record.mask.shape == SIZE
        assert len(record.reader_masks) == len(record.reader_grades) == 2 and record.malignant is None
        assert record.spacing == (40 / 64, 40 / 64)
        assert len({r.grade for r in records if r.group == record.group}) == 1
    again = list(dataset.read(dataset.PhantomOptions(count=5, seed=7, size=SIZE), Notes()))
    assert [record.content for record in again] == [record.content for record in records[:5]]
    other = next(dataset.read(dataset.PhantomOptions(count=5, seed=8, size=SIZE), Notes()))
    assert other.content != again[0].content


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"count": 0}, "count"),
        ({"count": -4}, "count"),
        ({"seed": -1}, "seed"),
        ({"size": (8, 96)}, "size"),
        ({"size": (96, 300)}, "size"),
    ],
)
def test_senseless_options_are_refused_before_the_first_record(wrong, field):
    with pytest.raises(InputError, match=f"^{field}: "):
        dataset.read(dataset.PhantomOptions(**wrong), Notes())
