"""An embedded world of coloured shapes: scenes, pixels, a verifier, and the texts about them."""
