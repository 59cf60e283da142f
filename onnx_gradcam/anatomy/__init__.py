"""What a network is: its score, its layers, its cells and its tokens. This room reads graphs and writes none."""
