"""Print the tables of all systems in Markdown: ``python -m thyroid_jax.tirads``."""

from thyroid_jax.tirads.tables import tables

if __name__ == "__main__":
    print(tables(), end="")
