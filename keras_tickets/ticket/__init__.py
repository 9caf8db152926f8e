"""The ticket: a Keras model behind masks, and its file."""
