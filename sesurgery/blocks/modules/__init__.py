"""What blocks are made of: torch modules, imported when a block is built. The options beside them need no torch."""
