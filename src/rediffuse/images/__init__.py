"""Image files to tensors and back: find, decode, crop, encode, degrade."""
