"""One module a data set: `CARD`, and `read(source, notes)` that yields records from the original download."""
