"""Studies: axes and seeds, cells, who takes which trial, and the answer; nothing here trains."""
