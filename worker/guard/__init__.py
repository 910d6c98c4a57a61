"""What is true of the guard model and not of guards in general."""
