"""What LiteRT and XNNPACK will do with a `.tflite` file, read from the file alone."""
