"""The verb `verify`: an engine against its trained model or its file, and what is wrong where it falls short."""
