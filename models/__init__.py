"""Demo models, labels and images that the wheel carries."""
