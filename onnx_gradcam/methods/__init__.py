"""Arrays in, arrays out: every method by its name. Nothing here knows of ONNX, files or pictures."""
