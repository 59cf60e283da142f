"""The anatomy of models with many scores per image: segmenters, detectors and sequences."""
