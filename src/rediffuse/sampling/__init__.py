"""Images out of a model: sampling, guidance, enlarging, latents and what lies between two of them."""
