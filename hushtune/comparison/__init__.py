"""First-order DP-SGD (Abadi et al., 2016): what a user would otherwise pick, for comparison.

The same configuration, tasks and moving parameters as hushtune's own methods, and the same
accountant; but floating-point noise, gradients, no ledger and no replay, and no test that examples
do not touch each other. The design rules that hushtune's own methods keep do not bind this one, and
whatever it writes says so.
"""
