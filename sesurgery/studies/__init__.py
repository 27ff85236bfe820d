"""Studies: axes and seeds, cells, the queue of trials, and the answer; nothing here trains."""
