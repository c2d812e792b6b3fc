"""A model of a few thousand fresh parameters, as if it were a finished run, for tests of what is done with one."""

import jax
from helpers import params_of

from thyroid_jax.config import Config, replace_groups
from thyroid_jax.predict import Trained
from thyroid_jax.radiomics import clinical

SIZE = (24, 32)
GRADES = ["1", "2", "3", "4", "5"]


def fresh_run(recipe, seed=0, **facts):
    """A run of a tiny recipe, whose network's input is 24 x 32."""
    config = replace_groups(Config(), data={"height": SIZE[0], "width": SIZE[1]})
    about = {
        "tasks": [task.name for task in recipe.tasks],
        "grades": GRADES,
        "grade_system": "Toy",
        "target": list(clinical.TARGET),
    }
    return Trained(config, recipe, jax.device_get(params_of(recipe, seed)), about | facts, step=1)
