"""Layer-wise relevance propagation: the same walk, by tables whose cotangent g of a value v makes g ⊙ v its relevance.

For whatever is linear in what it reads, the rule of the gradient is then the rule of relevance, too: each input gets a
share of the relevance as large as its share of the sum, and biases keep theirs. Only three kinds of operators have
other rules: layers with weights (``linear``), activations, and products of two values (``flows``).
"""
