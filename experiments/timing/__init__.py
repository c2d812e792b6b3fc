"""Parts of the benchmark: variants of the step, the process that times one, the rows of the table."""
