"""Settings that a script makes before JAX starts, and an import never makes: CPU flags, cache, garbage collection."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import jax

# Measured by `python -m experiments.benchmark`; see docs/performance.md.
CPU_FLAGS = ("--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE",)


def prepare() -> None:
    """Set XLA's CPU flags, a compilation cache that later runs share, and less frequent garbage collection.

    Call it after the imports and before the first JAX computation. The garbage collector then skips the imported
    objects. A flag that is already in ``XLA_FLAGS`` is kept. The cache is in ``$JAX_COMPILATION_CACHE_DIR``, or by
    default in the user's cache folder.
    """
    given = os.environ.get("XLA_FLAGS", "")
    ours = [flag for flag in CPU_FLAGS if flag.split("=")[0] not in given]
    os.environ["XLA_FLAGS"] = " ".join([given, *ours]).strip()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(home / "thyroid_jax" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # tracing a step makes millions of short-lived objects, and few cycles
