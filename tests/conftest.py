"""JAX made strict for the tests: eight CPU devices, no silent broadcasting between ranks, every annotated call checked."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Programs of tests are compiled often and run once: with less optimising they are ready in two thirds of the time.
QUICK = "--xla_llvm_disable_expensive_passes=true --xla_backend_optimization_level=1"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {QUICK} " + os.environ.get("XLA_FLAGS", "")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# thyroid_jax.evaluate works on numbers and tables of any kind; the rest says exactly what it takes.
CHECKED = [
    "batch",
    "config",
    "data",
    "errors",
    "files",
    "losses",
    "model",
    "mtl",
    "predict",
    "radiomics",
    "shapes",
    "tirads",
    "train",
]
jaxtyping.install_import_hook(["data_prep", *(f"thyroid_jax.{name}" for name in CHECKED)], "typechecker.check")


@pytest.fixture(scope="module", autouse=True)
def programs_end_with_their_module():
    """Compiled programs are kept by JAX for the life of a process: a worker that runs many modules would fill the memory
    with them.
    """
    yield
    jax.clear_caches()


@pytest.fixture
def x64():
    """Double precision for the length of a test: finite differences need it."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def make_batch():
    """Random batches of any shape, every label present: make_batch(b=3, h=16, w=24, k=5, r=11, seed=0)."""
    from thyroid_jax.batch import Batch

    def make(b=3, h=16, w=24, k=5, r=11, seed=0):
        rng = np.random.default_rng(seed)
        rows, columns = np.mgrid[:h, :w]
        centres = rng.uniform(0.35, 0.65, (b, 2)) * [h, w]
        mask = ((rows - centres[:, :1, None]) ** 2 + (columns - centres[:, 1:, None]) ** 2 < (h / 4) ** 2).astype(
            np.float32
        )
        image = np.clip(0.5 - 0.2 * mask + 0.1 * rng.normal(size=(b, h, w)), 0, 1).astype(np.float32)
        return Batch(
            image=image[..., None],
            mask=mask,
            grade=np.eye(k, dtype=np.float32)[rng.integers(k, size=b)],
            radiomics=rng.normal(size=(b, r)).astype(np.float32),
            mask_valid=np.ones(b, bool),
            grade_valid=np.ones(b, bool),
            radiomics_valid=np.ones(b, bool),
            example_valid=np.ones(b, bool),
        )

    return make


def drawn_records(notes):
    """Thirty discs, darker and rougher with the grade; two images of every case."""
    from thyroid_jax.data.record import Record

    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:24, :32]
    for number in range(30):
        grade = number // 2 % 3
        mask = (rows - rng.uniform(9, 15)) ** 2 + (columns - rng.uniform(12, 20)) ** 2 < rng.uniform(4, 7) ** 2
        image = np.clip(150 - 30 * grade * mask + rng.normal(size=mask.shape) * (10 + 5 * grade), 1, 255).astype(
            np.uint8
        )
        yield Record(
            case=f"{number // 2}_{number % 2}", group=str(number // 2), source="-", image=image, mask=mask, grade=grade
        )


@pytest.fixture(scope="session")
def drawn_data(tmp_path_factory):
    """Folder with the small data set "drawn" built in it."""
    from data_prep import builder
    from thyroid_jax.data.record import Card

    folder = tmp_path_factory.mktemp("data")
    grades = ("low", "middle", "high")
    card = Card(
        name="drawn", title="Drawn", source="test", licence="-", labels="Drawn discs.", grouping="case", grades=grades
    )
    builder.build(card, drawn_records, folder)
    return folder


@pytest.fixture(scope="session")
def train_command(drawn_data):
    """What to hand to subprocess to train on "drawn": train_command(run_dir, "--more", "fields")."""

    def command(run_dir, *more):
        fields = "--config tiny --data.name drawn --data.height 24 --data.width 32"
        fields += " --train.epochs 6 --train.evaluate-every 2 --train.batch-size 4"
        places = ["--data.dir", str(drawn_data), "--run-dir", str(run_dir)]
        environment = os.environ | {"XLA_FLAGS": QUICK, "PYTHONPATH": str(ROOT)}
        return {
            "args": [sys.executable, "-m", "experiments.train", *fields.split(), *places, *more],
            "env": environment,
        }

    return command


@pytest.fixture(scope="session")
def train(train_command):
    """Train on "drawn" in a process of its own and wait for it."""

    def run(run_dir, *more):
        return subprocess.run(**train_command(run_dir, *more), capture_output=True, text=True, timeout=300, check=False)

    return run


@pytest.fixture(scope="session")
def finished(train, tmp_path_factory):
    """The folder of an uninterrupted run."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    result = train(run_dir)
    assert result.returncode == 0, result.stderr
    return run_dir
