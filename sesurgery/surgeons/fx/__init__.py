"""The surgeon of PyTorch networks: torch.fx traces them, and blocks become their submodules."""
