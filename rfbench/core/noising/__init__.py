"""How noise and data mix, what a network says of the mixture, and the chains that lead from one to the other.

A `Process` knows the first two, a sampler (`samplers`) how much noise each step of a chain keeps and draws afresh. Both
are linear in the latent and the network's output, so that a `Schedule` is all that the rest of rfbench sees of them.
"""
