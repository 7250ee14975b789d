"""Fills in labels that nobody gave: probabilities calibrated on given labels, and decisions at a promised precision."""
