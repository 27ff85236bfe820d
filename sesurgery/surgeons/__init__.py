"""One surgeon for each representation, with the same methods: view and apply."""
