"""The use case: one model, images and targets in, explanations out."""
