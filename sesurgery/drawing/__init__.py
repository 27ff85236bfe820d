"""The picture of a network and of the changes in a plan."""
