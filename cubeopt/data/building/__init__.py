"""Many files made one dataset."""
