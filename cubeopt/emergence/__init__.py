"""What a trained cube does: who decides what where, and how news travels through it."""
