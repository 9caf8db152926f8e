"""The emulated ARM64 machine."""
