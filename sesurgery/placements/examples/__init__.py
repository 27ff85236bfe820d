"""Graphs as text, on which placements show what they take."""
