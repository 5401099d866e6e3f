"""Losses, optimizer, metrics, checkpoints and the loop, for a pack of trials."""
