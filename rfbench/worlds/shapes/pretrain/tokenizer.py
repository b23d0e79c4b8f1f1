"""A CLIPTokenizer for the grammar: one token per word, 16 tokens per sentence at most."""

from __future__ import annotations

import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from rfbench.worlds.shapes.grammar import COLOURS, PATTERNS, POSITIONS, RELATIONS, SHAPES, SIZES

MAX_TOKENS = 16
_START, _END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer() -> CLIPTokenizer:
    """Byte-pair merges learnt on the grammar's words until each word is a single token."""
    phrases = (*SIZES, *COLOURS, *SHAPES, *POSITIONS, *RELATIONS, *PATTERNS, "a an at the on background")
    words = sorted({word for phrase in phrases for word in phrase.split()})
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, end_of_word_suffix="</w>", special_tokens=[_START, _END], show_progress=False
    )
    learner.train_from_iterator(words, trainer)
    learnt = json.loads(learner.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    return CLIPTokenizer(
        vocab=learnt["vocab"],
        merges=merges,
        bos_token=_START,
        eos_token=_END,
        unk_token=_END,
        pad_token=_END,
        model_max_length=MAX_TOKENS,
    )
