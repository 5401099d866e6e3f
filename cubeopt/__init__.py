"""Hyperparameter optimization for packs of small 3D-lattice networks on text embeddings."""

__version__ = "0.1.0"
