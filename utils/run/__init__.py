"""A run around its training steps: randomness, device, checkpoints, log, pictures, signals."""
