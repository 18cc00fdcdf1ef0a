"""Benchmarks whose prompts ask for a picture: DPG-Bench, DSG-1K, WISE, CLIP score."""
