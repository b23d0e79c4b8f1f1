"""Pretraining's ingredients: no unseen prompts, near misses off by one attribute, one token per word."""

from dataclasses import asdict

import torch

from rfbench.worlds.shapes.grammar import NUM_PROMPTS, NUM_SINGLES, Single, index_of, is_unseen, prompt_at
from rfbench.worlds.shapes.pretrain.clip import MUTANTS, groups_of_near_misses
from rfbench.worlds.shapes.pretrain.data import draw_scenes
from rfbench.worlds.shapes.pretrain.reward import AGREEMENT, preference_loss
from rfbench.worlds.shapes.pretrain.tokenizer import MAX_TOKENS, build_tokenizer


def test_pretraining_never_draws_an_unseen_prompt() -> None:
    generator = torch.Generator().manual_seed(0)
    scenes = draw_scenes(4000, generator) + groups_of_near_misses(100, generator)
    assert not any(is_unseen(index_of(scene)) for scene in scenes)


def test_half_of_the_draws_are_single_objects() -> None:
    scenes = draw_scenes(4000, torch.Generator().manual_seed(1))
    assert 0.47 < sum(isinstance(scene, Single) for scene in scenes) / 4000 < 0.53


def test_near_misses_differ_from_their_scene_in_one_attribute() -> None:
    scenes = groups_of_near_misses(50, torch.Generator().manual_seed(2))
    assert len(set(scenes)) == len(scenes) == 50 * (1 + MUTANTS)
    for start in range(0, len(scenes), 1 + MUTANTS):
        first, *mutants = (asdict(scene) for scene in scenes[start : start + 1 + MUTANTS])
        for other in mutants:
            assert sum(first[name] != other[name] for name in first) == 1


def test_every_word_is_one_token_and_every_sentence_fits() -> None:
    tokenizer = build_tokenizer()
    for index in [*range(0, NUM_SINGLES, 997), *range(NUM_SINGLES, NUM_PROMPTS, 997)]:
        prompt = prompt_at(index)
        tokens = tokenizer(prompt).input_ids
        assert len(tokens) == len(prompt.split()) + 2 <= MAX_TOKENS
        assert tokenizer.decode(tokens, skip_special_tokens=True).strip() == prompt


def test_preference_loss_is_least_where_score_differences_are_the_annotators_logits() -> None:
    gold = torch.tensor([[0.2, 0.5, 0.5, 1.0]])
    best = (AGREEMENT * gold).requires_grad_()
    preference_loss(best, gold).backward()
    assert best.grad is not None
    assert best.grad.abs().max() < 1e-6
    assert preference_loss(best.detach(), gold) < preference_loss(-best.detach(), gold)
