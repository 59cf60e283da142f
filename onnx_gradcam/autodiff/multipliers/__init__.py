"""DeepLIFT: the same walk, by tables that carry multipliers Δy / Δx between an input and its baseline back.

Whatever is linear in what it reads has the rule of the gradient. Other operators are functions of one number (their
quotient is taken), products of two values (each is multiplied with the mean of the other), or maxima.
"""
