"""Helpers that know nothing of masks or of files: tables, processes, names."""
