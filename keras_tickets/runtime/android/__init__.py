"""A phone behind `adb`."""
