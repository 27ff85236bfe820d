"""Former name of `sesurgery.networks`; each module here warns, and goes with the next release."""
