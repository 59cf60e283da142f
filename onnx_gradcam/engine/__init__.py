"""The rewritten model, opened and run. Only ``session`` imports onnxruntime."""
