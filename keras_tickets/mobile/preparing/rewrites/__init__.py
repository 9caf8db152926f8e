"""One rewrite, or one family of them, in each file; `table.py` lists them."""
