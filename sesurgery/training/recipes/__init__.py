"""The parts of a recipe: optimiser, schedule, loss, augmentation, freezing, stopping."""
