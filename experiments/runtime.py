"""Settings that a script makes before JAX starts, and an import never makes: memory, CPU flags, cache, collection.

The memory of a step's intermediate values is kept by the process. By default glibc returns large blocks to the system
and takes them again in every step, and the system clears each page anew (docs/performance.md has the figures).
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from importlib.metadata import version
from pathlib import Path

from thyroid_jax.errors import InputError


def cpu_flags(jaxlib: str) -> tuple[str, ...]:
    """XLA's flags for CPUs with this version of jaxlib: none from 0.12 on, because XLA stops at a flag that is gone.

    Measured by ``python -m experiments.benchmark``; docs/performance.md has the figures.
    """
    tried = tuple(map(int, jaxlib.split(".")[:2])) < (0, 12)
    return ("--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE",) if tried else ()


CPU_FLAGS = cpu_flags(version("jaxlib"))

# mallopt's parameters, from glibc's malloc.h, and their values: large blocks come from the heap and not from mmap, its
# end is not given back, and all threads share one heap, because those of further ones are too small for large blocks.
MALLOC = ((-3, 1 << 30), (-1, (1 << 31) - 1), (-8, 1))


def keep_memory() -> bool:
    """Let the process keep the memory that it frees, for the next step; whether the C library could be told so."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, musl has not
    return mallopt is not None and all([mallopt(parameter, value) == 1 for parameter, value in MALLOC])


def prepare() -> None:
    """Keep freed memory, and set XLA's CPU flags, a compilation cache for later runs, and a rarer garbage collection.

    Call it when the command line is read and before the first JAX computation. The garbage collector then skips the
    imported objects. A flag that is already in ``XLA_FLAGS`` is kept. The cache is in ``$JAX_COMPILATION_CACHE_DIR``,
    or by default in the user's cache folder. Raises :class:`InputError` where :func:`start_devices` does.
    """
    import jax

    keep_memory()
    given = os.environ.get("XLA_FLAGS", "")
    ours = [flag for flag in CPU_FLAGS if flag.split("=")[0] not in given]
    os.environ["XLA_FLAGS"] = " ".join([given, *ours]).strip()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(home / "thyroid_jax" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    start_devices()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # tracing a step makes millions of short-lived objects, and few cycles


def start_devices() -> None:
    """Start JAX's devices; :class:`InputError` where there is none of the kind that the user or the machine asks for.

    JAX itself ends with a long traceback, and for some kinds, such as ``cuda``, without a message.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        asked = f"JAX_PLATFORMS={platforms}: " if platforms else ""
        reason = str(error).split(" (set JAX_PLATFORMS")[0].rstrip(".") or "its kind of device is not found"
        raise InputError(
            f"{asked}JAX cannot start: {reason}. Set JAX_PLATFORMS=cpu to compute on the CPU, or install the JAX of "
            'this machine: pip install -U "jax[cuda12]" for an NVIDIA GPU, "jax[tpu]" for a TPU.'
        ) from error
