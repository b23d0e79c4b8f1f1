"""A LoRA arrives in plain diffusers with every layer, whatever modules it is put on; and so does kohya's file of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoPipelineForText2Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from rfbench.cli import exit_code
from rfbench.core.policy import Policy, make_policy
from rfbench.errors import InputError
from rfbench.models import lora
from rfbench.models.stable_diffusion import StableDiffusion, StableDiffusionConfig
from rfbench.planning.suite_components import suite_components
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import Suite
from tests import tiny

CPU = torch.device("cpu")
TARGETS = {
    "attention": ["to_q", "to_k", "to_v", "to_out.0"],
    "keys": ["to_k"],
    "output alone": ["to_out.0"],
    "attention and its surroundings": ["to_k", "proj_in", "proj_out"],
    "feed-forward": ["ff.net.0.proj", "ff.net.2"],
    "cross-attention alone": ["attn2.to_k", "attn2.to_v"],
    "convolutions": ["conv1", "conv2", "conv_shortcut"],
    "all of attention and convolutions": ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"],
    "time": ["time_emb_proj", "linear_1", "linear_2"],
    "ends": ["conv_in", "conv_out", "to_q", "downsamplers.0.conv", "upsamplers.0.conv"],
}


def trained_policy(folder: Path, prompt_file: Path, **finetune: Any) -> Policy:
    """A policy whose adapter has other weights than at its beginning, where it adds nothing."""
    suite = tiny.make_suite(folder, prompt_file, finetune={"method": "lora", "rank": 2} | finetune)
    policy = make_policy(suite, StableDiffusion(StableDiffusionConfig(path=str(folder)), CPU), CPU)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return policy


def adapters(network: Any) -> dict[str, tuple[Tensor, Tensor, float]]:
    """By module: the two factors, and what their product is multiplied by."""
    found = {}
    for name, module in network.named_modules():
        if getattr(module, "lora_A", None):
            adapter = next(iter(module.lora_A))
            found[name] = (module.lora_A[adapter].weight, module.lora_B[adapter].weight, module.scaling[adapter])
    return found


def in_diffusers(base: Path, file: Path) -> Any:
    parts = {} if "xl" in base.name else {"safety_checker": None}
    pipe = AutoPipelineForText2Image.from_pretrained(base, **parts)
    pipe.load_lora_weights(file)
    return pipe.unet


def outputs(network: Any, policy: Policy, condition: Any) -> Tensor:
    latents = torch.randn(2, *policy.model.latent_shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return policy.model.predict(network, latents, torch.tensor([10, 900]), condition)


def require_arrived(policy: Policy, unet: Any) -> None:
    trained, arrived = adapters(policy.denoiser), adapters(unet)
    assert list(arrived) == list(trained)
    for name, (down, up, scale) in trained.items():
        assert torch.equal(arrived[name][0], down)
        assert torch.equal(arrived[name][1], up)
        assert arrived[name][2] == scale
    condition = policy.encode_prompts(["a cat", "a dog"])
    ours, theirs = outputs(policy.denoiser, policy, condition), outputs(unet, policy, condition)
    assert float((ours - theirs).abs().max()) == 0
    policy.denoiser.disable_adapters()  # type: ignore[operator]
    assert float((outputs(policy.denoiser, policy, condition) - theirs).abs().max()) > 1e-3


@pytest.mark.parametrize("alpha", [None, 3.0])
@pytest.mark.parametrize("targets", TARGETS)
def test_every_layer_arrives_in_plain_diffusers(
    folders: dict[str, Path], prompt_file: Path, tmp_path: Path, targets: str, alpha: float | None
) -> None:
    family = "xl" if alpha else "sd1"
    policy = trained_policy(folders[family], prompt_file, target_modules=TARGETS[targets], alpha=alpha)
    policy.model.save_trained(tmp_path, policy.adapter)
    require_arrived(policy, in_diffusers(folders[family], tmp_path))
    trained = {name: value.detach().clone() for name, value in policy.trainable().items()}
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.zero_()
    policy.model.load_trained(tmp_path, policy.adapter)
    assert all(torch.equal(policy.trainable()[name], value) for name, value in trained.items())


@pytest.mark.parametrize("targets", ["attention", "attention and its surroundings", "feed-forward"])
def test_kohyas_file_arrives_too(folders: dict[str, Path], prompt_file: Path, tmp_path: Path, targets: str) -> None:
    """diffusers reads kohya's files; the names and the alphas are those that ComfyUI and A1111 look for."""
    policy = trained_policy(folders["sd1"], prompt_file, target_modules=TARGETS[targets], alpha=3.0)
    policy.model.save_kohya(tmp_path, str(policy.adapter))
    state = load_file(tmp_path / lora.KOHYA_FILE)
    expected = {f"lora_unet_{name.replace('.', '_')}" for name in adapters(policy.denoiser)}
    assert set(state) == {
        f"{name}.{end}" for name in expected for end in ("lora_down.weight", "lora_up.weight", "alpha")
    }
    assert {float(value) for key, value in state.items() if key.endswith(".alpha")} == {3.0}
    require_arrived(policy, in_diffusers(folders["sd1"], tmp_path / lora.KOHYA_FILE))


def test_a_run_is_exported_for_comfyui(
    folders: dict[str, Path], prompt_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for method in ("lora", "full"):
        suite = tiny.make_suite(folders["sd1"], prompt_file, epochs=1, finetune={"method": method, "alpha": 8.0})
        run = train(tiny.plan(suite), tmp_path / method, Quiet())
        assert exit_code(["export", str(run), "--format", "kohya"]) == (0 if method == "lora" else 2)
        if method == "lora":
            assert "lora_unet_" in next(iter(load_file(run / "weights-kohya" / lora.KOHYA_FILE)))
            assert (run / "weights" / lora.FILE).exists()  # what was there stays
    assert "kohya is a format of LoRA files, but this run trained all weights" in capsys.readouterr().err


def test_older_files_are_read_and_others_refused(folders: dict[str, Path], prompt_file: Path, tmp_path: Path) -> None:
    policy = trained_policy(folders["sd1"], prompt_file)
    policy.model.save_trained(tmp_path, policy.adapter)
    saved = {name: value.detach().clone() for name, value in policy.trainable().items()}
    state = load_file(tmp_path / lora.FILE)
    old = {key.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): value for key, value in state.items()}
    save_file(old, tmp_path / lora.FILE)
    policy.model.load_trained(tmp_path, policy.adapter)
    assert all(torch.equal(value, saved[name]) for name, value in policy.trainable().items())
    lost = next(iter(old))
    save_file({key: value for key, value in old.items() if key != lost}, tmp_path / lora.FILE)
    with pytest.raises(
        InputError, match=r"does not hold the weights of this run's LoRA: 1 tensors differ. .* is missing"
    ):
        policy.model.load_trained(tmp_path, policy.adapter)


def test_the_file_says_rank_alpha_and_modules_in_order(
    folders: dict[str, Path], prompt_file: Path, tmp_path: Path
) -> None:
    """In order: sets would be written in another one by every process."""
    policy = trained_policy(folders["sd1"], prompt_file, alpha=6.0)
    policy.model.save_trained(tmp_path, policy.adapter)
    with safe_open(tmp_path / lora.FILE, "pt") as file:
        said = file.metadata()["lora_adapter_metadata"]
    assert '"unet.lora_alpha": 6.0' in said
    assert '"unet.r": 2' in said
    order = [said.index(f'"{name}"') for name in sorted(TARGETS["attention"])]
    assert order == sorted(order)


def test_a_checkpoint_of_another_adapter_is_refused(folders: dict[str, Path], prompt_file: Path) -> None:
    saved = trained_policy(folders["sd1"], prompt_file, target_modules=["to_k"]).state_dict()
    with pytest.raises(InputError, match="the checkpoint does not hold the weights of what this suite trains"):
        trained_policy(folders["sd1"], prompt_file, target_modules=["to_k", "to_q"]).load_state_dict(saved)
    with pytest.raises(InputError, match="is unknown"):
        trained_policy(folders["sd1"], prompt_file, target_modules=["to_q"]).load_state_dict(saved)


def test_alpha_is_the_rank_by_default(suite: Suite, pipeline: Path, prompt_file: Path) -> None:
    """A suite that says nothing of it keeps its hash."""
    said = Suite.model_validate(suite.model_dump() | {"finetune": {"method": "lora", "alpha": None}})
    unsaid = Suite.model_validate(suite.model_dump() | {"finetune": {"method": "lora"}})
    assert suite_components(said).suite_hash == suite_components(unsaid).suite_hash
    scales = {scale for *_, scale in adapters(trained_policy(pipeline, prompt_file).denoiser).values()}
    assert scales == {1.0}
