"""`hushtune bench`: what a step costs beside the forward passes that it needs.

Every case runs in a process of its own, so that its peak memory is its own, and takes turns there
with plain forward passes of the same micro-batches, so that both see the same machine. Weights and
texts are random: neither time nor memory depends on what they are.
"""
