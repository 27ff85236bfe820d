"""pycuda.autoinit makes a context of its own: nothing here may import it."""

raise AssertionError("pycuda.autoinit was imported")
