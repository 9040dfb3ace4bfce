"""Empirical lower bounds on ε of a run's code as it runs: canaries, attacks, statistics.

    canaries   texts, and coins that put them in or leave them out
    training   one run on the canaries, along the path that every run takes
    filters    from releases to how likely each canary is in
    attacks    guessing the coins from what the run published
    bounds     from right guesses to lower bounds on ε
    guessing   which guesses are made, and what a plan claims of them
    pipeline   all of these together
    both       the pipeline's audit and that of the mechanism (`hushtune.privacy.audit`) as one

No private text is read.
"""
