"""What scripts set before JAX starts: freed memory is kept, flags and cache of the user are kept too."""

import os
import subprocess
import sys

import pytest

from experiments import runtime

FAULTS = """
import resource, sys
import numpy as np
from experiments import runtime

kept = runtime.keep_memory() if sys.argv[1] == "keep" else None
take = lambda: np.ones(40_000_000)  # 320 MB, more than any block that glibc keeps by itself
take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    take()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_memory_is_taken_again_without_page_faults():
    """A page of 4 KiB or 2 MiB: 3 x 320 MB are at least 480 faults where the memory went back to the system."""
    faults = {}
    for how in ("keep", "leave"):
        command = [sys.executable, "-c", FAULTS, how]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=runtime.__file__[:-22]).stdout
        kept, faults[how] = printed.split()
        assert kept == ("True" if how == "keep" else "None")
    assert int(faults["keep"]) < 50 < 400 < int(faults["leave"])


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert runtime.keep_memory() is False


def test_a_version_of_xla_that_was_not_tried_gets_no_flag_of_ours():
    assert runtime.cpu_flags("0.10.2") == runtime.cpu_flags("0.11.2") != ()
    assert runtime.cpu_flags("0.12.0") == runtime.cpu_flags("1.0.0rc1") == ()


PREPARED = """
import os, jax
from experiments import runtime
runtime.start_devices = lambda: None  # XLA would stop at the flags that these tests make up
runtime.CPU_FLAGS = runtime.cpu_flags("0.11.9")  # a version that has flags
runtime.prepare()
print(os.environ["XLA_FLAGS"].strip(), jax.config.jax_compilation_cache_dir, sep="\\n")
"""


def prepared(**given):
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")} | given
    command = [sys.executable, "-c", PREPARED]
    found = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=runtime.__file__[:-22], env=environment
    )
    return found.stdout.splitlines()


def test_flags_and_cache_of_the_user_win(tmp_path):
    (ours,) = runtime.cpu_flags("0.11.9")
    name = ours.split("=")[0]
    flags, cache = prepared(XDG_CACHE_HOME=str(tmp_path))
    assert flags == ours and cache == str(tmp_path / "thyroid_jax" / "compiled")
    flags, cache = prepared(XLA_FLAGS=f"{name}=OTHER --xla_more=1", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"))
    assert flags == f"{name}=OTHER --xla_more=1" and cache == str(tmp_path / "mine")
