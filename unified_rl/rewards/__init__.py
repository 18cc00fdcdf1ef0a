"""Rewards: one file, one class each; `hybrid` composes them."""
