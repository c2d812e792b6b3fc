"""Scripts a person runs: parse the command line, call the library, say where the results are."""
