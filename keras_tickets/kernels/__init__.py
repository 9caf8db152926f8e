"""Which variables can be pruned, why others cannot, and how often each is used."""
