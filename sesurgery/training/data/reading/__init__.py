"""What data sets are made of: images that are read when asked for, sizes, places on disk, shares."""
