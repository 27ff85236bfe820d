"""Channel attention inserted into any convolutional backbone, trained, lowered, built, verified and timed."""

__version__ = "0.1.0"
