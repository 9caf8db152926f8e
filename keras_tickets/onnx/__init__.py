"""The `.onnx` format, read and written without a runtime."""
