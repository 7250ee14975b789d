"""This package makes pictures and pages made from records."""
