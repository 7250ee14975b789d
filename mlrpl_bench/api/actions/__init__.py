"""This package does what the interface offers, with one file for each kind of work that a request may ask for."""
