"""The account of memory, made without numbers, against the tensors of a real run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rfbench.core.conditioning import stack
from rfbench.core.noising.flow import Flow
from rfbench.models.stable_diffusion import StableDiffusion, StableDiffusionConfig
from rfbench.models.stable_diffusion_3 import StableDiffusion3, StableDiffusion3Config
from rfbench.planning.memory import MemoryPart, device_peak, memory_account, update_chunk
from rfbench.planning.plan import make_outline
from rfbench.planning.storages import peak_bytes
from rfbench.running.assembly import Run
from rfbench.suite.loading import load_suite
from rfbench.suite.suite import Budget, Suite
from tests import tiny
from tests.models import pipelines


def measured(run: Run) -> dict[tuple[str, str], int]:
    """Bytes of a real run's tensors after an optimiser step, and of a chunk's storages."""
    policy, chunk_size = run.policy, run.plan.suite.compute.chunk_size
    gradients = tiny.record_gradients(run)
    run.update(run.rollout(0))
    trained = policy.trainable()
    moments = run.learner.state_dict()["state"].values()
    found = {
        ("denoiser, trained weights", "always"): sum(p.nbytes for p in trained.values()),
        ("denoiser, frozen weights", "always"): sum(
            p.nbytes for name, p in policy.denoiser.named_parameters() if name not in trained
        ),
        ("frozen reference", "always"): sum(p.nbytes for p in (policy.frozen_copy or torch.nn.Module()).parameters()),
        ("denoiser, tables", "always"): sum(
            b.nbytes
            for network in (policy.denoiser, policy.frozen_copy or torch.nn.Module())
            for b in network.buffers()
        ),
        ("Adam moments", "always"): sum(m[name].nbytes for m in moments for name in ("exp_avg", "exp_avg_sq")),
        ("gradients", "update"): sum(gradient.nbytes for gradient in gradients[: len(trained)]),
    }
    latents = torch.zeros(chunk_size, *policy.model.latent_shape)
    steps = policy.schedule.objective_steps[:1].repeat(chunk_size)
    condition = stack([policy.encode_prompts(["a cat"])] * chunk_size)
    for parameter in trained.values():
        parameter.grad = torch.zeros_like(parameter)
    found["activations of a chunk", "update"] = peak_bytes(lambda: update_chunk(policy, latents, steps, condition))
    with torch.no_grad():
        found["activations of a chunk", "decoding"] = peak_bytes(lambda: policy.decode(latents))
        sampling = peak_bytes(lambda: policy.step_mean(latents, steps, condition))
    return found | {("activations of a chunk", "sampling"): sampling}


@pytest.mark.parametrize(
    ("family", "method", "checkpointing"),
    [
        ("sd1", "full", False),
        pytest.param("xl", "lora", True, marks=pytest.mark.slow),
        pytest.param("sd3", "lora", True, marks=pytest.mark.slow),
        pytest.param("sd3", "full", False, marks=pytest.mark.slow),
    ],
)
def test_the_account_is_what_a_run_holds(
    folders: dict[str, Path], suite: Suite, family: str, method: str, checkpointing: bool
) -> None:
    data = suite.model_dump() | {"finetune": {"method": method}}
    data["model"] = pipelines.model(family, folders[family])
    data["sampler"] |= {"kind": "flow-sde"} if family == "sd3" else {}
    data["compute"] |= {"decode_chunk_size": 3, "gradient_checkpointing": checkpointing}
    plan = tiny.plan(Suite.model_validate(data))
    account = {(component.name, component.when): component.bytes for component in memory_account(plan)}
    for key, value in measured(tiny.make_run(plan)).items():
        assert abs(account.get(key, 0) - value) <= (64 if "activations" in key[0] else 0), key
    assert account["latents of an epoch", "host"] == 12 * 6 * 4 * 8 * 8 * 4


@pytest.mark.slow
def test_a_training_sampler_of_its_own_counts_where_it_is_used(folders: dict[str, Path], suite: Suite) -> None:
    """Evaluations keep the suite's guidance and steps: sampling takes the larger of the two, the update its own."""

    def account(guidance: float, num_steps: int, own: dict[str, float]) -> dict[tuple[str, str], int]:
        sampler = suite.sampler.model_dump() | {"guidance_scale": guidance, "num_steps": num_steps}
        tables = {"prdp": suite.algorithms["prdp"].model_dump() | {"sampler": own}}
        data = suite.model_dump() | {"sampler": sampler, "algorithms": tables}
        data["model"] = {"name": "stable-diffusion", "path": str(folders["sd1"])}
        parts = memory_account(make_outline(Suite.model_validate(data), "prdp", 0))
        return {(part.name, part.when): part.bytes for part in parts}

    chunk, noise, latents = "activations of a chunk", ("noise of a chunk", "sampling"), ("latents of an epoch", "host")
    guided, plain = account(5.0, 9, {}), account(1.0, 4, {})
    assert guided[chunk, "update"] > plain[chunk, "update"]
    trained_plain = account(5.0, 9, {"guidance_scale": 1.0, "num_steps": 4})
    assert trained_plain[chunk, "update"] == plain[chunk, "update"]
    assert trained_plain[chunk, "sampling"] == guided[chunk, "sampling"]
    assert (trained_plain[noise], trained_plain[latents]) == (guided[noise], plain[latents])
    trained_guided = account(1.0, 4, {"guidance_scale": 5.0, "num_steps": 9})
    assert trained_guided == guided


@pytest.mark.slow
def test_text_encoders_take_no_memory_beside_activations_where_prompts_have_a_folder(suite: Suite) -> None:
    accounts = []
    for folder in (None, "encoded"):
        compute = suite.compute.model_copy(update={"prompt_folder": folder})
        accounts.append(memory_account(make_outline(suite.model_copy(update={"compute": compute}), "prdp", 0)))
    here, gone = ([part for part in account if part.name == "text encoders"] for account in accounts)
    assert here == [MemoryPart("text encoders", gone[0].bytes, "always")]
    assert gone[0].when == "encoding"
    assert device_peak(accounts[0]) - device_peak(accounts[1]) == gone[0].bytes


def test_snapshots_of_the_policy_are_counted(suite: Suite) -> None:
    suite = suite.model_copy(update={"budget": Budget(reward_queries_per_epoch=16)})
    account = {name: memory_account(make_outline(suite, name, 0)) for name in ("ddpo", "nft")}
    sizes = {name: {part.name: part.bytes for part in parts} for name, parts in account.items()}
    assert sizes["nft"]["snapshots"] == sizes["nft"]["denoiser, trained weights"]
    assert "snapshots" not in sizes["ddpo"]


def test_the_published_networks_have_their_published_size() -> None:
    """Without the files: from the configs that rfbench knows."""
    model = StableDiffusion.untrained(StableDiffusionConfig(), torch.device("meta"))
    assert sum(p.numel() for p in model.denoiser.parameters()) == 859_520_964
    assert sum(p.numel() for p in model.text.encoders[0].parameters()) == 123_060_480
    assert sum(p.numel() for p in model.vae.parameters()) == 49_490_199  # of 83,653,863: images are never encoded
    assert model.latent_shape == (4, 64, 64)
    assert float(model.process.alphas_cumprod[-1]) == pytest.approx(0.00466, abs=1e-5)


def test_stable_diffusion_35_has_its_published_size() -> None:
    """Its transformer's 2,469,663,232 numbers are weights and the table of positions."""
    model = StableDiffusion3.untrained(StableDiffusion3Config(resolution=512), torch.device("meta"))
    weights, tables = (
        sum(tensor.numel() for tensor in tensors) for tensors in (model.denoiser.parameters(), model.denoiser.buffers())
    )
    assert (weights, tables) == (2_243_171_520, 384 * 384 * 1536)
    sizes = [sum(p.numel() for p in encoder.parameters()) for encoder in model.text.encoders]
    assert sizes == [123_650_304, 694_659_840, 4_762_310_656]  # CLIP-L and CLIP-G with projections, T5-XXL's encoder
    assert model.latent_shape == (16, 64, 64)
    assert model.process == Flow(3.0, pytest.approx(3 / 1002))


def test_the_peak_is_of_the_most_demanding_phase() -> None:
    parts = [("weights", 10, "always"), ("a", 5, "update"), ("b", 4, "update"), ("c", 8, "sampling"), ("d", 99, "host")]
    assert device_peak(MemoryPart(*part) for part in parts) == 19  # type: ignore[arg-type]


def test_worlds_without_an_architecture_have_no_account() -> None:
    assert memory_account(make_outline(load_suite("optimum-gaussian"), "prdp", 0)) == []
