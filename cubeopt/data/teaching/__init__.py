"""Text made embeddings by a teacher model."""
