"""Attacks on what federated fine-tuning gives away, to be run with and without its protection.

    gradients    the update that a client would send unprotected
    atoms        what every token at every position looks like to a model's first layer
    inversion    leak 1: the text of a sent update
    codec        leak 2: which updates a codec was trained on
    membership   leak 3: which examples a released model was trained on
    scores       how well an attack did, and how well it would have done by chance

DR-Encoder (arXiv 2412.17053) names three leaks, and sets a private prior, a codec trained on
synthetic updates and noised codes against them. Nothing in a run imports this package.
"""
