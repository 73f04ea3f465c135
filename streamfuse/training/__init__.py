"""Two-stage training of CrossFuse: an auto-encoder for each modality, then attention and decoder on their features."""
