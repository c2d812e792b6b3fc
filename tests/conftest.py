"""JAX made strict for the tests: eight CPU devices, no silent broadcasting between ranks, every annotated call checked."""

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 " + os.environ.get("XLA_FLAGS", "")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jaxtyping.install_import_hook(["thyroid_jax", "data_prep"], "beartype.beartype")


@pytest.fixture
def x64():
    """Double precision for the length of a test: finite differences need it."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def make_batch():
    """Random batches of any shape, every label present: make_batch(b=3, h=16, w=24, k=5, r=11, seed=0)."""
    import numpy as np

    from thyroid_jax.batch import Batch

    def make(b=3, h=16, w=24, k=5, r=11, seed=0):
        rng = np.random.default_rng(seed)
        rows, columns = np.mgrid[:h, :w]
        centres = rng.uniform(0.35, 0.65, (b, 2)) * [h, w]
        mask = ((rows - centres[:, :1, None]) ** 2 + (columns - centres[:, 1:, None]) ** 2 < (h / 4) ** 2).astype(np.float32)
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
