"""Changed copies of an image: what a covered pixel becomes, which pixels are covered, and what the copies score.

Methods make maps of it, and metrics check maps with it.
"""
