"""How a program is compiled that runs a few times only."""

QUICK: dict[str, str | bool | int | float] = {
    "xla_backend_optimization_level": 1,
    "xla_llvm_disable_expensive_passes": True,
}
"""``jax.jit(..., compiler_options=QUICK)``: compiled in less than half the time, and with the same results to the bit
where this project uses it. Options are for outermost programs only.
"""
