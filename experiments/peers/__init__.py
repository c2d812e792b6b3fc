"""The same model and training step in PyTorch, an agreement check of the two, and a benchmark of one beside the other."""
