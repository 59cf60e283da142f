"""Input-space methods: what each element of the input contributes to the score. NumPy arrays in, arrays out."""
