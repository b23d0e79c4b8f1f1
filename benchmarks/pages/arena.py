"""The arena's questions: pairs of cells that share their seeds, on `small-shapes`, 30 epochs.

Of the runs in `results/studies/arena`, whose settings are those of the best trials of `rfbench tune`; the protocol is
in benchmarks/README.md.
"""

SUITE = "small-shapes-arena"
CONTRASTS = (
    ("ELBO for trajectory: CRD for PRDP", "prdp", "crd"),
    ("GRPO: the prompt's std for the batch's", "grpo", "grpo-group"),
    ("GRPO: no std for the batch's", "grpo", "grpo-centred"),
    ("AWM: a lagged policy, to sample and to compare", "awm", "awm-lag"),
    ("AWM: noise levels weighted as by NFT", "awm", "awm-normalised"),
    ("AWM: noise levels weighted by the velocity", "awm", "awm-velocity"),
    ("AWM: two noise levels for six", "awm", "awm-draws-2"),
    ("AWM: no KL term", "awm", "awm-no-kl"),
    ("AWM: a hundredfold KL term", "awm", "awm-kl-0_1"),
)
