"""Files become pixels and tensors, and places in a tensor become places in the photo again."""
