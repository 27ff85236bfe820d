"""The picture of a network and of what a plan does to it."""
