"""Fine-tuning on data that stays with its owners: rounds between a server and clients, on Flower.

- `hushtune.federated.client`: what a client computes, and what it refuses.
- `hushtune.federated.server`: the rounds, from the first question to the run folder.
- `hushtune.federated.simulation`: both in one machine, on Flower's simulation.
- `hushtune.federated.apps`: both as Flower apps for a SuperLink with SuperNodes.

Neither the first nor the second knows Flower; `hushtune.federated.grid` is where they meet it.
"""
