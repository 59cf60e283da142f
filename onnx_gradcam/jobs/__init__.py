"""Many images, or two models: what the command line runs."""
