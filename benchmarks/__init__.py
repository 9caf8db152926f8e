"""Slow proofs, resumable, with their results as data; see README.md."""
