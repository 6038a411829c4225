"""Files to tensors and back: find, decode, crop, encode, degrade."""
