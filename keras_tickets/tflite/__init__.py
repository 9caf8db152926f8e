"""The `.tflite` format, read and written without a runtime."""
