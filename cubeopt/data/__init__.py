"""From files of embeddings to one dataset folder."""
