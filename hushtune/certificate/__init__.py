"""A certificate to file: what a run's ledger claims, checked without the training data.

`verification` carries out the `checks` of a run folder, `document` puts what was found into
canonical JSON, `page` shows it to people, `signing` signs it, and `filing` writes and checks the
files.
"""
