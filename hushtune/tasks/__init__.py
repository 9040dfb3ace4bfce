"""Text in, per-example loss and metric out."""
