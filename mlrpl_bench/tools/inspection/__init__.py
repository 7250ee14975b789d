"""What one wants to know of a dataset before training on it: are its files whole, what is in it, how does it look."""
