"""The lowering passes: one file per pass; the file's name is its name in specs."""
