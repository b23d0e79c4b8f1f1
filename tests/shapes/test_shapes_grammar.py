"""The prompt set: how many there are, that text and scene are one to one, and that the splits never meet."""

from dataclasses import fields

import pytest

from rfbench.worlds.shapes.grammar import (
    NUM_PAIRS,
    NUM_PROMPTS,
    NUM_SINGLES,
    WORDS,
    Pair,
    Single,
    index_of,
    is_unseen,
    parse,
    prompt_at,
    scene_at,
    split,
)


def test_counts() -> None:
    assert (NUM_SINGLES, NUM_PAIRS, NUM_PROMPTS) == (24_192, 193_536, 217_728)


def test_every_single_and_a_stride_of_pairs_round_trip() -> None:
    indices = [*range(NUM_SINGLES), *range(NUM_SINGLES, NUM_PROMPTS, 7)]
    prompts = [prompt_at(index) for index in indices]
    assert len(set(prompts)) == len(prompts)
    assert [index_of(parse(prompt)) for prompt in prompts] == indices


def test_sentences() -> None:
    single = Single("small", "orange", "circle", "top left", "blue", "dotted")
    pair = Pair("orange", "ring", "left of", "red", "cross", "white", "plain")
    assert single.prompt == "a small orange circle at the top left on a blue dotted background"
    assert pair.prompt == "an orange ring left of a red cross on a white plain background"


@pytest.mark.parametrize("index", [-1, NUM_PROMPTS])
def test_index_outside_the_grammar(index: int) -> None:
    with pytest.raises(IndexError, match=str(index)):
        prompt_at(index)


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ("a photo of a cat", "not a prompt of the world 'shapes': 'a photo of a cat'"),
        ("a small red circle at the top on a red plain background", "must differ.*red, red"),
        ("a red circle above a red ring on a blue plain background", "must differ.*red, red, blue"),
        ("a orange circle above a red ring on a blue plain background", "it reads 'an orange circle"),
        ("a small red circle at the top on a blue plain background.", "not a prompt"),
    ],
)
def test_parse_refuses_other_text(prompt: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse(prompt)


def test_splits_are_disjoint_and_complete() -> None:
    train, unseen, small = (set(split(name).indices.tolist()) for name in ("train", "unseen", "small"))
    assert not train & unseen
    assert train | unseen == set(range(NUM_PROMPTS))
    assert small < train
    assert len(train) > 100_000
    assert 0.045 < len(unseen) / NUM_PROMPTS < 0.055
    assert {index for index in range(0, NUM_PROMPTS, 11) if is_unseen(index)} == {i for i in unseen if i % 11 == 0}


def test_splits_do_not_move() -> None:
    """Shipped weights were trained on these splits; a change here would leak unseen prompts."""
    assert [len(split(name)) for name in ("train", "unseen", "small")] == [206_700, 11_028, 45]
    assert split("unseen").indices[[0, 1, -1]].tolist() == [29, 43, 217_715]
    assert split("small")[0] == "a small blue ring at the top left on a purple dotted background"


def test_small_prompts_are_single_objects_with_balanced_attributes() -> None:
    scenes = [parse(prompt) for prompt in split("small")]
    assert len(set(scenes)) == 45
    assert all(isinstance(scene, Single) for scene in scenes)
    for field in fields(Single):
        words = [getattr(scene, field.name) for scene in scenes]
        shares = [words.count(word) for word in set(words)]
        assert max(shares) <= -(-45 // len(shares))


def test_a_split_is_a_sequence() -> None:
    train = split("train")
    assert list(train[:3]) == [train[0], train[1], train[2]]
    assert train[-1] == prompt_at(int(train.indices[-1]))
    assert scene_at(int(train.indices[5])).prompt == train[5]


def test_unknown_split() -> None:
    with pytest.raises(ValueError, match=r"unknown split 'test': choose one of train, unseen, small"):
        split("test")


def test_the_words_are_those_of_the_sentences() -> None:
    assert {word for prompt in split("unseen") for word in prompt.split()} == WORDS
