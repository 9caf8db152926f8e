"""Pruners that learn which weights to keep: Gem-Miner, edge-popup, ESPN and STR."""
