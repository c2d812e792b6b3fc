"""JAX made strict for the tests: eight CPU devices, no silent broadcasting of ranks, every annotated call checked."""

import gc
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Programs of tests are compiled often and run once: with plainer code they are ready in two fifths of the time.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
QUICK += " --xla_cpu_parallel_codegen_split_count=1"
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # later ones stop at a flag that they do not know
    QUICK += " --xla_cpu_use_fusion_emitters=false"
# Eight simulated devices share few cores: on a busy machine they wait for each other longer than XLA's 40 seconds.
PATIENT = "--xla_cpu_collective_call_terminate_timeout_seconds=1800 --xla_cpu_collective_timeout_seconds=1800"
DEVICES = "--xla_force_host_platform_device_count=8"
os.environ["XLA_FLAGS"] = f"{DEVICES} {PATIENT} {QUICK} " + os.environ.get("XLA_FLAGS", "")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from thyroid_jax import compiling  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# thyroid_jax.evaluate works on numbers and tables of any kind; the rest says exactly what it takes.
UNCHECKED = {"evaluate", "settings", "__init__"}
PARTS = sorted(path.stem for path in (ROOT / "thyroid_jax").iterdir() if path.suffix == ".py" or path.is_dir())
CHECKED = [f"thyroid_jax.{part}" for part in PARTS if part not in UNCHECKED and not part.startswith("__")]
jaxtyping.install_import_hook(["data_prep", *CHECKED], "typechecker.check")
compiling.QUICK |= {"xla_backend_optimization_level": 0}  # it would have the last word over the flag above
gc.freeze()
gc.set_threshold(50_000, 20, 20)  # tracing makes millions of short-lived objects, and few cycles

# The smallest network, of an outline and a grade alone: for runs of which the network does not matter.
LEAST = "--model.depth 1 --rlar.weight 0 --guidance.weight 0 --malignancy.weight 0".split()


@pytest.fixture(scope="module", autouse=True)
def programs_end_with_their_module():
    """JAX keeps compiled programs for the life of a process: a worker of many modules would fill the memory."""
    yield
    jax.clear_caches()


@pytest.fixture
def x64():
    """Double precision for the length of a test: finite differences need it."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def make_batch():
    """Random batches of any shape, every label present: make_batch(b=3, h=16, w=24, k=5, r=13, seed=0)."""
    from thyroid_jax.batch import Batch

    def make(b=3, h=16, w=24, k=5, r=13, seed=0):
        rng = np.random.default_rng(seed)
        rows, columns = np.mgrid[:h, :w]
        centres = rng.uniform(0.35, 0.65, (b, 2)) * [h, w]
        mask = ((rows - centres[:, :1, None]) ** 2 + (columns - centres[:, 1:, None]) ** 2 < (h / 4) ** 2).astype(float)
        image = np.clip(0.5 - 0.2 * mask + 0.1 * rng.normal(size=(b, h, w)), 0, 1)
        there = np.ones(b, bool)
        return Batch(
            image=image[..., None].astype(np.float32),
            mask=mask.astype(np.float32),
            grade=np.eye(k, dtype=np.float32)[rng.integers(k, size=b)],
            malignant=rng.integers(2, size=b).astype(np.float32),
            radiomics=rng.normal(size=(b, r)).astype(np.float32),
            mask_valid=there,
            grade_valid=there,
            malignant_valid=there,
            radiomics_valid=there,
            example_valid=there,
        )

    return make


@pytest.fixture(scope="session")
def tiny_recipe():
    """Recipes of a few thousand parameters: tiny_recipe(total_steps=0.0, group={"field": value}, ...).

    Plain with guidance, the guidance target taken as the batch has it. Recipes that differ in numbers share a program.
    """
    from thyroid_jax.config import Config, recipe_of, replace_groups
    from thyroid_jax.model import PRESETS
    from thyroid_jax.recipe import Fitted

    plain = replace_groups(Config(), model=PRESETS["tiny"], guidance={"weight": 0.1, "view": "original"})

    def make(total_steps=0.0, **groups):
        config = replace_groups(plain, **groups)
        shapes = len(config.consistency.features)
        return recipe_of(config, fitted=Fitted.neutral(5, 13, shapes, total_steps=total_steps))

    return make


def drawn_records(notes):
    """Thirty ellipses, darker and rougher with the grade; two images of every case, with two readers each.

    Every label is missing somewhere. The pixels of every second case are twice as wide as high.
    """
    from thyroid_jax.data.record import Record

    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:24, :32]
    for number in range(30):
        case, grade = number // 2, number // 2 % 3
        wide = 2.0 if case % 2 else 1.0  # columns that a millimetre takes: fewer where pixels are wide
        y, x, radius = rng.uniform(9, 15), rng.uniform(12, 20), rng.uniform(4, 7)
        inside = lambda r, y=y, x=x, wide=wide: (rows - y) ** 2 + ((columns - x) * wide) ** 2 < r**2
        mask = inside(radius)
        image = np.clip(150 - 30 * grade * mask + rng.normal(size=mask.shape) * (10 + 5 * grade), 1, 255)
        yield Record(
            case=f"{case}_{number % 2}",
            group=str(case),
            source="-",
            image=image.astype(np.uint8),
            mask=None if number == 3 else mask,
            reader_masks=() if number == 3 else (inside(radius + 1), inside(radius - 1)),
            grade=None if number == 9 else grade,
            reader_grades=() if number == 9 else (grade, min(grade + number % 2, 2)),
            malignant=None if case % 5 == 4 else grade == 2,
            spacing=(0.1, 0.1 * wide),
        )


@pytest.fixture(scope="session")
def drawn_data(tmp_path_factory):
    """Folder with the small data set "drawn" built in it."""
    from data_prep import builder
    from thyroid_jax.data.record import Card

    folder = tmp_path_factory.mktemp("data")
    card = Card(
        name="drawn",
        title="Drawn",
        source="test",
        licence="-",
        labels="Drawn discs.",
        grouping="case",
        grades=("low", "middle", "high"),
    )
    builder.build(card, drawn_records, folder)
    return folder


@pytest.fixture(scope="session")
def train_arguments(drawn_data):
    """Arguments of `experiments.train` for "drawn": train_arguments(run_dir, "--more", "fields")."""

    def arguments(run_dir, *more):
        fields = "--config tiny --data.name drawn --data.height 24 --data.width 32"
        fields += " --train.epochs 6 --train.evaluate-every 2 --train.batch-size 8"
        return [*fields.split(), "--data.dir", str(drawn_data), "--run-dir", str(run_dir), *more]

    return arguments


@pytest.fixture(scope="session")
def train_command(train_arguments):
    """What to hand to subprocess to train on "drawn" in a process of its own."""

    def command(run_dir, *more):
        environment = os.environ | {"XLA_FLAGS": QUICK, "PYTHONPATH": str(ROOT)}
        return {
            "args": [sys.executable, "-m", "experiments.train", *train_arguments(run_dir, *more)],
            "env": environment,
        }

    return command


@pytest.fixture(scope="session")
def finished(train_command, tmp_path_factory):
    """The folder of an uninterrupted run, made by a process of its own on one device."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    result = subprocess.run(**train_command(run_dir), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return run_dir
