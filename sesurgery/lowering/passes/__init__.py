"""The lowering passes: one file a pass, named in specs by the file's name."""
