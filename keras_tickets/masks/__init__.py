"""What a mask does to a layer: the masked call, and the variables beside a kernel."""
