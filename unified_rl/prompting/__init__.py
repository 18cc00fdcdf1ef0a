"""Prompts to draw with a question and its answer, in six categories, over any world of objects."""
