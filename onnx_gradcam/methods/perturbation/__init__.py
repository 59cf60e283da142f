"""Methods that change something, run the model on the changed copies, and look at what that does to the score.

Nothing here knows of ONNX: what runs a model is a function from copies to their scores.
"""
