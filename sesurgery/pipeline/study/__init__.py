"""The verb `study`: its trials here or on a cluster, the race of its cells, and what all of it would take."""
