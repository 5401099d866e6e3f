"""Whether a dataset is fit for the cube."""
