"""What XNNPACK and LiteRT will do with a `.tflite` file on a phone, read from the file."""
