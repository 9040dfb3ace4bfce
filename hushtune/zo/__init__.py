"""Zeroth-order optimisation, the public side: directions, forward passes, updates.

Nothing here knows of privacy. The only private values it sees are per-example losses, which it
returns to the caller and forgets.
"""
