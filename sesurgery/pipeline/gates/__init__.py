"""The verb `gates`: what the gates of a run or of a file do, by epoch too, and what folding them does."""
