"""The table of Selvaraju et al. 2017 on our own classifiers: what is measured, how, and how it is written down."""
