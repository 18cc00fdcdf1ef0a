"""RL post-training of unified multimodal models."""

__version__ = "0.1.0"
