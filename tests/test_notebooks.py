"""The notebooks of docs/notebooks run from top to bottom, print what is stored in them, and stay small and clean."""

import contextlib
import io
import json
import math
import re
from pathlib import Path

import jax
import pytest

from thyroid_jax.train import devices

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = ("losses_and_rlar", "radiomics_of_a_nodule", "train_evaluate_predict")
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")


def cells_of(name, kind):
    return [cell for cell in json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"] if cell["cell_type"] == kind]


def stored_text(cell):
    """What the cell printed when the notebook was stored."""
    streams = [output for output in cell["outputs"] if output["output_type"] == "stream"]
    return "".join("".join(output["text"]) for output in streams if output["name"] == "stdout")


def differences(stored, printed, *, numbers=True):
    """(stored, printed) lines whose words differ, or with ``numbers`` whose numbers do.

    Two units in the last printed digit, or 1 %: compilers round differently. Spaces do not count.
    """
    one, other = stored.splitlines(), printed.splitlines()
    if len(one) != len(other):
        return [(stored, printed)]
    return [(a, b) for a, b in zip(one, other) if not same_line(a, b, numbers)]


def same_line(stored, printed, numbers):
    words = [" ".join(NUMBER.sub(" # ", line).split()) for line in (stored, printed)]
    if words[0] != words[1]:
        return False
    return not numbers or all(
        math.isclose(float(a), float(b), rel_tol=0.01, abs_tol=2.5 * last_digit(a))
        for a, b in zip(NUMBER.findall(stored), NUMBER.findall(printed), strict=True)
    )


def last_digit(number):
    """One unit in the last printed digit behind the point; a whole number must agree: 0."""
    _, point, digits = number.partition(".")
    return 10.0 ** -len(digits) if point else 0.0


@pytest.mark.parametrize("stored, printed, same", [
    ("a 1.500  b", "a 1.5002 b", True), ("a 1.50", "a 1.52", True), ("a 1.50", "a 1.54", False),
    ("a 10", "a 10", True), ("a 3", "a 4", False), ("a -0.40", "a 0.40", False), ("True 1", "False 1", False),
    ("a", "a\nb", False), ("a 1.0 2.0", "a 1.0", False),
])  # fmt: skip
def test_texts_are_compared_with_the_tolerance_that_is_said(stored, printed, same):
    assert (differences(stored, printed) == []) == same
    assert differences("dice 0.61", "dice 0.72", numbers=False) == []
    assert differences("dice 0.61", "iou 0.61", numbers=False)


@pytest.fixture
def one_device(monkeypatch):
    """Runs use one device, as on the machine of a reader."""
    whole = devices.data_mesh
    monkeypatch.setattr(devices, "data_mesh", lambda chosen=None: whole(chosen or jax.devices()[:1]))


@pytest.fixture
def shown(monkeypatch):
    """The number of figures that ``plt.show`` has drawn and closed, in a list of one number."""
    count = [0]

    def show():
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
            count[0] += 1
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    yield count
    plt.close("all")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_cells_run_and_print_what_is_stored(name, one_device, shown, tmp_path, monkeypatch):
    """A cell tagged "varies" holds numbers of a training, which differ from machine to machine; its words do not."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for place, cell in enumerate(cells_of(name, "code")):
        printed, shown[0] = io.StringIO(), 0
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), f"{name}.ipynb, cell {place}", "exec"), names)
        numbers = "varies" not in cell["metadata"].get("tags", [])
        assert differences(stored_text(cell), printed.getvalue(), numbers=numbers) == [], (
            "outputs are out of date; run: jupyter nbconvert --to notebook --execute --inplace docs/notebooks/*.ipynb"
        )
        pictures = [output for output in cell["outputs"] if "image/png" in output.get("data", {})]
        assert len(pictures) == shown[0], "pictures are out of date"
    assert list(tmp_path.iterdir()) == []  # nothing is left in the folder of the notebook


def test_every_notebook_is_tested():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_small_executed_in_order_and_free_of_machine_paths(name):
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < 200_000
    text = path.read_text()
    assert not re.search(r"/(?:root|home|tmp|work|usr|Users|var|opt)/|[A-Z]:\\\\", text)
    code = cells_of(name, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert kinds <= {"stream", "display_data"}
    assert any(stored_text(cell) for cell in code)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_begins_with_its_title_and_its_links_lead_to_files(name):
    texts = ["".join(cell["source"]) for cell in cells_of(name, "markdown")]
    assert re.match(r"# \w", texts[0])
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", "\n".join(texts)):
        assert (FOLDER / target).is_file(), target
    for target in re.findall(r"`((?:thyroid_jax|data_prep|experiments)/[\w/]+\.py|\w+\.ipynb)`", "\n".join(texts)):
        assert (ROOT / target).is_file() or (FOLDER / target).is_file(), target
    lines = [line for text in texts for line in text.splitlines()]
    lines += [line for cell in cells_of(name, "code") for line in "".join(cell["source"]).splitlines()]
    assert max(map(len, lines)) <= 120
