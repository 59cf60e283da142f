"""How a photo becomes the tensor that a model was trained on."""
