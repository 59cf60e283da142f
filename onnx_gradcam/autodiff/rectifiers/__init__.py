"""Guided backpropagation and deconvolution: which activations are gated on the way back, and how."""
