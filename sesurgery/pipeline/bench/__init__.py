"""The verb `bench`: engines raced, whole against whole by `bench`, and block by block by `prices`."""
