"""Command-line scripts: each parses its arguments, calls the library, and prints where the results are."""
