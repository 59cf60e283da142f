"""Read, follow and write an ONNX graph."""
