"""Files of embeddings and of text: found, told apart by content, read without running code."""
