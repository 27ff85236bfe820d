"""One surgeon a representation: view and apply, method for method alike."""
