"""These modules inspect a dataset before training: are its files whole, what is in it, how does it look."""
