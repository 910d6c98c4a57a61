"""The recipe of the demonstration checkpoint: from nothing, seeded, on two CPU cores."""
