"""The network; every tensor starts with the trial axis P."""
