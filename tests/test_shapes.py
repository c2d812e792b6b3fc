"""The drawn shapes and their picture."""

import io

import numpy as np
import pytest
from PIL import Image

from experiments.shapes import main, picture, shapes
from thyroid_jax.radiomics import soft


def test_each_feature_tells_apart_what_it_is_meant_to(tmp_path, capsys):
    png, values = picture(shapes(64))
    of = lambda name: dict(zip(soft.FEATURES, values[name]))
    assert of("tall")["taller_than_wide"] > 0.99 > 0.5 == pytest.approx(of("disc")["taller_than_wide"], abs=0.01)
    assert of("wide")["taller_than_wide"] < 0.02
    assert (
        of("star")["margin_irregularity"]
        > of("eight lobes")["margin_irregularity"]
        > of("45 degrees")["margin_irregularity"] + 0.02
    )
    assert of("L")["non_ellipticity"] > of("wide")["non_ellipticity"] + 0.3
    assert of("ring")["non_compactness"] > 0.5 > of("disc")["non_compactness"] + 0.4
    width, height = Image.open(io.BytesIO(png)).size
    assert width > height > 500
    assert np.ptp(np.asarray(Image.open(io.BytesIO(png)).convert("L"))) > 200


def test_the_command_writes_the_picture_and_prints_the_values(tmp_path, capsys):
    main(["--out", str(tmp_path / "shapes.png")])
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in printed[1:-1]] == list(shapes())
    assert (tmp_path / "shapes.png").stat().st_size > 10_000
