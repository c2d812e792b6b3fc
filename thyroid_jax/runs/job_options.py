"""The options of a grid that is computed in jobs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from thyroid_jax.errors import InputError


@dataclass(frozen=True)
class JobOptions:
    """Where a grid is computed, and what each job gets. It does not change any result."""

    submit: Literal["no", "local", "slurm"] = "no"
    """compute the grid in jobs, through submitit: processes of this machine, or jobs of SLURM"""
    jobs: int = 4
    """number of jobs; each computes one run after the other"""
    job_minutes: int = 240
    """time limit of a job; it is then queued again and goes on"""
    job_gpus: int = 0
    """GPUs of a job; a local job sees no GPU but these"""
    job_cpus: int = 2
    """CPU cores of a job of SLURM"""
    job_memory_gb: int = 16
    """memory of a job of SLURM"""
    job_partition: str = ""
    """partition of SLURM; its default where this is empty"""
    job_account: str = ""
    """account of SLURM; its default where this is empty"""

    def __post_init__(self) -> None:
        for name, least in (("jobs", 1), ("job_minutes", 1), ("job_gpus", 0), ("job_cpus", 1), ("job_memory_gb", 1)):
            if getattr(self, name) < least:
                option = name.replace("_", "-")
                raise InputError(f"--{option} is {getattr(self, name)}; it must be at least {least}.")
        for field in fields(JobOptions):
            places = _PLACES.get(field.name, ("local", "slurm"))
            if field.name != "submit" and self.submit not in places and getattr(self, field.name) != field.default:
                option = field.name.replace("_", "-")
                raise InputError(
                    f"--{option} does nothing with --submit {self.submit}; leave it out, or give --submit "
                    f"{' or '.join(places)}."
                )


_PLACES = dict.fromkeys(("job_cpus", "job_memory_gb", "job_partition", "job_account"), ("slurm",))
"""option -> the values of ``submit`` with which it does something, where these are not both"""
