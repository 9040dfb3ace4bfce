"""The demonstration: made-up support messages, fine-tuned privately in two minutes."""
