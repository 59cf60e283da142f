"""An ONNX model before any gradient: load, prepare, find score and layers."""
