"""Our models against recorded tensors of the published ones."""
