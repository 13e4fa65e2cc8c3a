"""Training signals as pure functions: float32 tensors in, a scalar mean over the batch out."""
