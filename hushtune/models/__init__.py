"""Load models from a folder or the hub, choose what moves, refuse what couples examples."""
