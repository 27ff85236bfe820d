"""How an inductor engine is built and run."""
