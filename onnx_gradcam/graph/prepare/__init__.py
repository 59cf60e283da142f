"""The one form of a model that is differentiated, and the way from a deployed file to it."""
