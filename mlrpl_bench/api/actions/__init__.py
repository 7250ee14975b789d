"""What the interface does: one file for each kind of work that a request may ask for."""
