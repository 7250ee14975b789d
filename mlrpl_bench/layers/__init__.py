"""Building blocks that two or more methods share. Each file is one block."""
