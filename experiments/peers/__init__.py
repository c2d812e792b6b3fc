"""The model and its training step in PyTorch, a check that both agree, and a benchmark of one beside the other."""
