"""Galleries: the right tile of the right run and epoch, within a size, whatever the folder holds."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from rfbench.report import load
from rfbench.report.render.page.gallery import Gallery, galleries, thin
from tests.report.run_writer import write_run, write_samples


def gallery(root: Path, budget: int = 14_000_000, ranking: tuple[str, ...] = ("prdp", "ddpo")) -> Gallery:
    (found,) = galleries(load([root]), {"toy": list(ranking)}, budget)
    return found


def pixel(uri: str, x: int, y: int) -> tuple[int, ...]:
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
    found = picture.getpixel((x, y))
    assert isinstance(found, tuple)
    return found


def test_each_picture_is_its_epochs_grid(tmp_path: Path) -> None:
    for algorithm in ("prdp", "ddpo"):
        write_samples(write_run(tmp_path, algorithm))
    found = gallery(tmp_path)
    assert found.epochs == [0, 5, 10, 15, 20]
    seen = found.sets[0]
    assert list(seen.pictures) == ["base model", "prdp", "ddpo"]
    assert list(gallery(tmp_path, ranking=("ddpo", "prdp")).sets[0].pictures) == ["base model", "ddpo", "prdp"]
    assert list(seen.pictures["base model"]) == [0]
    assert list(seen.pictures["prdp"]) == [5, 10, 15, 20]
    assert seen.pixelated
    assert pixel(seen.pictures["prdp"][10], 12, 12) == (100, 20, 200)  # epoch 10, row 1, column 1


def test_one_run_per_algorithm_and_the_reader_is_told_which(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0)  # no samples
    write_samples(write_run(tmp_path, "prdp", 1))
    write_samples(write_run(tmp_path, "prdp", 2))
    assert "One run each: seed 1." in gallery(tmp_path).note
    write_samples(write_run(tmp_path, "ddpo", 0))
    assert "One run each: prdp seed 1, ddpo seed 0." in gallery(tmp_path).note


def test_large_tiles_become_thumbnails(tmp_path: Path) -> None:
    write_samples(write_run(tmp_path), tile=512, epochs=(0, 5))
    seen = gallery(tmp_path).sets[0]
    picture = Image.open(io.BytesIO(base64.b64decode(seen.pictures["prdp"][5].partition(",")[2])))
    assert picture.size == (2 * 144, 2 * 144)
    assert not seen.pixelated


def test_a_small_budget_leaves_out_and_says_so(tmp_path: Path) -> None:
    prompts = [f"prompt {i}" for i in range(8)]
    write_samples(write_run(tmp_path), prompts, epochs=range(0, 200, 5))
    whole = gallery(tmp_path)
    assert "25 of 40 evaluations" in whole.note
    size = sum(prompt_set.size for prompt_set in whole.sets)
    found = gallery(tmp_path, size // 3)
    assert sum(prompt_set.size for prompt_set in found.sets) <= size // 3
    assert "Shown: the first" in found.note
    assert (found.epochs[0], found.epochs[-1]) == (0, 195)


def test_damaged_pictures_and_indexes_are_passed_over(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    write_samples(folder)
    (folder / "samples" / "epoch-0010-seen.png").write_bytes(b"no picture")
    Image.new("RGB", (4, 4)).save(folder / "samples" / "epoch-0015-seen.png")  # smaller than its tiles
    other = write_run(tmp_path, "ddpo")
    write_samples(other)
    (other / "samples" / "index.json").write_text("{")
    seen = gallery(tmp_path).sets[0]
    assert list(seen.pictures) == ["base model", "prdp"]
    assert list(seen.pictures["prdp"]) == [5, 20]


def test_a_run_with_other_prompts_is_not_put_beside(tmp_path: Path) -> None:
    write_samples(write_run(tmp_path, "ddpo"))
    write_samples(write_run(tmp_path, "prdp"), ["a house", "a tree"])
    assert list(gallery(tmp_path, ranking=("ddpo", "prdp")).sets[0].pictures) == ["base model", "ddpo"]


def test_each_prompt_has_its_recorded_score(tmp_path: Path) -> None:
    write_samples(write_run(tmp_path, curve=(1.0, 2.0, 3.0, 4.0, 5.0), per_prompt=(-0.5, 0.25, 9.0)))
    seen = gallery(tmp_path).sets[0]
    assert seen.scores["base model"] == {0: [[0.5], [1.25]]}  # the grid has the first two of three prompts
    assert seen.scores["prdp"][20] == [[4.5], [5.25]]
    assert seen.columns[1]["scores"][-1] == [["4.500"], ["5.250"]]
    assert seen.note == "Scores: preference, mean of the prompt's 30 images, of which 2 are shown."


def test_each_tile_has_its_score_where_the_run_recorded_them(tmp_path: Path) -> None:
    folder = write_run(tmp_path, per_prompt=(-0.5, 0.25, 9.0))
    write_samples(folder)
    scores = {"measure": "preference", "scores": [[1.5, 2.5], [3.0, 4.0]]}
    (folder / "samples" / "epoch-0020-seen.json").write_text(json.dumps(scores))
    seen = gallery(tmp_path).sets[0]
    assert seen.scores["prdp"][20] == [[1.5, 2.5], [3.0, 4.0]]
    assert seen.columns[1]["scores"][-1] == [["1.500", "2.500"], ["3.000", "4.000"]]


@pytest.mark.parametrize(
    "scores", ["", "[]", "{}", '{"measure": "m", "scores": [[1, 2]]}', '{"measure": "m", "scores": [[NaN], [1]]}']
)
def test_scores_that_do_not_fit_the_grid_are_not_shown(tmp_path: Path, scores: str) -> None:
    folder = write_run(tmp_path, per_prompt=())
    write_samples(folder)
    (folder / "samples" / "epoch-0020-seen.json").write_text(scores)
    assert gallery(tmp_path).sets[0].scores["prdp"][20] == []


def test_a_run_without_scores_per_prompt_has_none(tmp_path: Path) -> None:
    write_samples(write_run(tmp_path, per_prompt=()))
    seen = gallery(tmp_path).sets[0]
    assert seen.note == ""
    assert seen.columns[1]["scores"] == [[], [], [], []]


def test_a_megabyte_of_prompt_is_cut(tmp_path: Path) -> None:
    write_samples(write_run(tmp_path), ["x" * 1_000_000])
    (prompt,) = gallery(tmp_path).sets[0].prompts
    assert len(prompt) < 300
    assert "1,000,000 characters" in prompt


def test_thinning_keeps_the_ends() -> None:
    assert thin(list(range(100)), 3) == [0, 50, 99]
    assert thin([0, 5], 3) == [0, 5]
