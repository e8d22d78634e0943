"""Learning: schedule, optimizer, augmentation, mixing, loss, the training step and evaluation."""
