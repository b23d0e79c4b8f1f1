"""The gold scorer: right on renders, exactly one attribute down on a one-attribute mutant, low on other captions."""

from dataclasses import asdict

import pytest
import torch

from rfbench.worlds.shapes import gold
from rfbench.worlds.shapes.grammar import NUM_PROMPTS, NUM_SINGLES, Scene, parse, scene_at
from rfbench.worlds.shapes.pretrain.data import mutant
from rfbench.worlds.shapes.renderer import render

SINGLES = [scene_at(index) for index in range(0, NUM_SINGLES, 61)]
PAIRS = [scene_at(index) for index in range(NUM_SINGLES, NUM_PROMPTS, 499)]
KINDS = pytest.mark.parametrize("scenes", [SINGLES, PAIRS], ids=["single", "pair"])


def _render(scenes: list[Scene]) -> torch.Tensor:
    return render(scenes, torch.Generator().manual_seed(0))


def _prompts(scenes: list[Scene]) -> list[str]:
    return [scene.prompt for scene in scenes]


@KINDS
def test_renders_score_high(scenes: list[Scene]) -> None:
    pictures, prompts = _render(scenes), _prompts(scenes)
    assert gold.attribute_accuracy(pictures, prompts).mean() >= 0.99
    assert gold.all_correct(pictures, prompts).float().mean() >= 0.97


@KINDS
def test_readings_are_the_scene(scenes: list[Scene]) -> None:
    readings = gold.read_attributes(_render(scenes), _prompts(scenes))
    right = [reading == asdict(scene) for reading, scene in zip(readings, scenes, strict=True)]
    assert sum(right) / len(right) >= 0.97


@KINDS
def test_a_mutant_caption_loses_the_mutated_attribute_alone(scenes: list[Scene]) -> None:
    generator = torch.Generator().manual_seed(1)
    mutants = [mutant(scene, generator) for scene in scenes]
    marks = gold.correct_attributes(_render(scenes), _prompts(mutants))
    expected = [
        {name: word == asdict(scene)[name] for name, word in asdict(changed).items()}
        for scene, changed in zip(scenes, mutants, strict=True)
    ]
    agreed = [mark == want for mark, want in zip(marks, expected, strict=True)]
    assert sum(agreed) / len(agreed) >= 0.97


@KINDS
def test_other_captions_score_at_chance(scenes: list[Scene]) -> None:
    shuffled = torch.randperm(len(scenes), generator=torch.Generator().manual_seed(2)).tolist()
    score = gold.attribute_accuracy(_render(scenes), [scenes[row].prompt for row in shuffled]).mean()
    assert 0.1 < score < 0.3


def test_an_empty_picture_has_a_background_and_no_object() -> None:
    prompts = [SINGLES[0].prompt, PAIRS[0].prompt]
    readings = gold.read_attributes(torch.full((2, 3, 32, 32), 245, dtype=torch.uint8), prompts)
    for reading in readings:
        assert reading.pop("background") == "white"
        assert reading.pop("pattern") == "plain"
        assert set(reading.values()) == {gold.NOTHING}


def test_noise_scores_low() -> None:
    noise = torch.randint(256, (len(SINGLES), 3, 32, 32), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    assert gold.attribute_accuracy(noise, _prompts(SINGLES)).mean() < 0.3


def test_scores_do_not_depend_on_the_batch() -> None:
    scenes = SINGLES[:8] + PAIRS[:8]
    pictures, prompts = _render(scenes), _prompts(scenes)
    together = gold.attribute_accuracy(pictures, prompts)
    alone = [gold.attribute_accuracy(pictures[row : row + 1], prompts[row : row + 1]).item() for row in range(16)]
    assert together.tolist() == alone


def test_score_is_a_share_of_attributes() -> None:
    scene = parse("a small red circle at the top left on a blue dotted background")
    wrong_by_two = "a large red ring at the top left on a blue dotted background"
    assert gold.attribute_accuracy(_render([scene]), [wrong_by_two]).item() == pytest.approx(4 / 6)


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 images \(1, 3, 32, 32\).*got torch.float32 \(1, 3, 32, 32\)"):
        gold.attribute_accuracy(torch.zeros(1, 3, 32, 32), [SINGLES[0].prompt])
