"""How the weights of the world `shapes` are made: `python -m rfbench.worlds.shapes.pretrain --out DIR`."""
