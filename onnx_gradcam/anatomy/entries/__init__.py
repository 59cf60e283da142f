"""What has been done to the entries of every value: which column made them, what moved, squashed and changed them."""
