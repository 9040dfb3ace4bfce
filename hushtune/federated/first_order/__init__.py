"""DR-Encoder's rounds: first-order updates of clients, shortened by a codec, clipped and noised.

    settings     what a run fixes beside its privacy plan
    flat         the moving parameters as one vector
    gradients    what an example or a client adds: its gradient, or what its own training changed
    optimizers   what moves the parameters along a decoded update
    coded        from an update to the numbers that the boundary gets, and from a release to a move
    session      a run of such rounds, from a configuration or from a ledger's header

The first `moment_rounds` rounds release moments of the updates, of which the prior is made; all
others release codes. Both are vectors of the plan's K numbers and length C at most, so that
one plan accounts for the run: T alike releases. The setting is that of DR-Encoder (arXiv
2412.17053); with the identity codec it is federated averaging with differential privacy.
"""
