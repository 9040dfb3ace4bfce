"""How well a finished run does: exactly, on public data, or with noise, on private data."""
