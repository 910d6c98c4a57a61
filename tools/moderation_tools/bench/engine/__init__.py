"""The engine's bench. It needs torch, transformers, pillow and numpy, and nothing else."""
