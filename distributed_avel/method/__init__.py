"""The method of the paper, in plain PyTorch."""
