"""The embedded world `shapes`: a prompt grammar, a renderer, an exact scorer and weights trained on them."""
