"""What other programs load: models for lmms-eval and for VLMEvalKit."""
