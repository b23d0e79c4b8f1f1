"""What a run needs of a GPU's memory, component by component, from shapes alone.

The networks are made without numbers (PyTorch's fake tensors), and one chunk goes through the policy's own code,
forward and backward, while its storages are booked. So neither weights nor a GPU are needed. Counted are the weights of
the denoiser, its frozen copy, text encoders and decoder; gradients and Adam's moments; the weights of rewards, by the
size of their files; an epoch's prompt embeddings; a chunk's noise; an algorithm's snapshots; and what PyTorch's
operators make for a chunk.

Left out are the CUDA context (about 0.5 GiB), what the allocator cannot use between blocks, what a reward makes while
it scores, an algorithm's own networks, and the workspaces of kernels. The largest of those are of convolutions: where
a VAE decodes 32 images of 512 pixels in fp32, about as much as input and output together, 16 GiB on top of 22. cuDNN
takes them where they are free; where they are not, PyTorch falls back to a kernel that needs less. How many images are
decoded at once, where no setting says it, is chosen so that decoding with its workspaces is never the largest phase.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from rfbench.core.conditioning import RECENT_BYTES, Condition, num_bytes, stack
from rfbench.core.model import Model
from rfbench.core.policy import REFERENCE, Policy, make_policy
from rfbench.planning.plan import Outline
from rfbench.planning.storages import peak_bytes

WORKSPACE_SHARE = 1  # of a decoder's activations, which cuDNN takes beside them where it can


class MemoryPart(NamedTuple):
    """Something that takes memory: on the GPU always or in one phase alone, or in the host's memory."""

    name: str
    bytes: int
    when: Literal["always", "encoding", "sampling", "update", "decoding", "host"]


def memory_account(outline: Outline) -> list[MemoryPart]:
    """The components of a run on one GPU; none where the model offers no architecture without weights."""
    with _without_numbers(outline) as policies:
        if policies is None:
            return []
        policy, activations = policies[0], _activations(outline, *policies)
        encoders = policy.model.prompt_encoders()
        stored = outline.suite.compute.prompt_folder is not None
        components = [
            *_weights(policy, len(outline.algorithm.cls.snapshots)),
            MemoryPart("text encoders", _parameters(encoders), "encoding" if stored else "always"),
            *_others(outline, policy.model, policy),
            MemoryPart("activations of a chunk", activations.sampling, "sampling"),
            MemoryPart("activations of a chunk", activations.update, "update"),
            MemoryPart("activations of a chunk", activations.decoding, "decoding"),
        ]
    return [component for component in components if component.bytes]


def images_decoded_at_once(outline: Outline) -> int | None:
    """``compute.decode_chunk_size``, on a GPU; None where it is open and the model offers no architecture."""
    if outline.suite.compute.decode_chunk_size is not None:
        return outline.suite.compute.decode_chunk_size
    with _without_numbers(outline) as policies:
        return None if policies is None else _activations(outline, *policies).decoded_at_once


@contextmanager
def _without_numbers(outline: Outline) -> Iterator[tuple[Policy, Policy] | None]:
    """The policy as evaluations and as training draw with it, of shapes without numbers; None as above."""
    model = outline.model.cls.untrained(outline.model.config, torch.device("meta"))
    if model is None:
        yield None
        return
    compute = outline.suite.compute.model_copy(update={"compile": False})
    policy = make_policy(outline.suite.model_copy(update={"compute": compute}), model, torch.device("cpu"))
    training = policy.drawing_with(outline.sampler)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for network in _networks(policy):
            _move_to_cpu(network)
        yield policy, training


def device_peak(components: Iterable[MemoryPart]) -> int:
    """Bytes on the GPU at the most demanding moment."""
    always, phases = device_phases(components)
    return always + max(phases.values(), default=0)


def device_phases(components: Iterable[MemoryPart]) -> tuple[int, dict[str, int]]:
    """Bytes on the GPU that are always there, and those that each phase adds."""
    totals: dict[str, int] = {}
    for component in components:
        totals[component.when] = totals.get(component.when, 0) + component.bytes
    totals.pop("host", None)
    return totals.pop("always", 0), totals


def _weights(policy: Policy, snapshots: int) -> list[MemoryPart]:
    frozen = [p for p in policy.denoiser.parameters() if not p.requires_grad]
    trained, copy = list(policy.trainable().values()), policy.frozen_copy
    denoisers = [policy.denoiser, *([copy] if copy else [])]
    parts = policy.model.frozen_parts().items()
    return [
        MemoryPart("denoiser, frozen weights", _size(frozen), "always"),
        MemoryPart("denoiser, trained weights", _size(trained), "always"),
        MemoryPart("frozen reference", _size(copy.parameters()) if copy else 0, "always"),
        MemoryPart("denoiser, tables", sum(_size(network.buffers()) for network in denoisers), "always"),
        MemoryPart("snapshots", snapshots * _size(trained), "always"),
        MemoryPart("Adam moments", 2 * _size(trained), "always"),
        MemoryPart("gradients", _size(trained), "update"),
        *(MemoryPart(name, _parameters(networks), "always") for name, networks in parts),
    ]


def _others(outline: Outline, model: Model, policy: Policy) -> list[MemoryPart]:
    suite, prompt = outline.suite, num_bytes(policy.encode_prompts([""]))
    evaluated = sum(settings.num_prompts for settings in suite.evaluation.sets.values())
    latent, steps = torch.empty(model.latent_shape).nbytes, outline.sampler.num_steps
    most_steps = max(steps, suite.sampler.num_steps)  # evaluations draw with the suite's
    rewards = [
        MemoryPart(
            f"reward {part.name}: its network", int(1e9 * (source.memory_gigabytes or source.gigabytes or 0)), "always"
        )
        for part in (outline.reward, *outline.held_out_rewards)
        for source in part.sources()
    ]
    return [
        *rewards,
        MemoryPart("prompt embeddings of an epoch", outline.prompts_per_epoch * prompt, "always"),
        MemoryPart("noise of a chunk", suite.compute.pairs_per_call * (most_steps + 1) * latent, "sampling"),
        MemoryPart("latents of an epoch", suite.budget.reward_queries_per_epoch * (steps + 1) * latent, "host"),
        MemoryPart("encoded prompts", RECENT_BYTES + evaluated * prompt, "host"),
    ]


class _Activations(NamedTuple):
    """Bytes at the peak of each phase, and how many images are decoded at once."""

    sampling: int
    update: int
    decoding: int
    decoded_at_once: int


def _activations(outline: Outline, policy: Policy, training: Policy) -> _Activations:
    """Of the run's chunk, in evaluation with ``policy`` and with ``training``, whose guidance may be another."""
    chunk_size = outline.suite.compute.pairs_per_call
    latents = torch.zeros(chunk_size, *policy.model.latent_shape)
    condition = stack([policy.encode_prompts([""])] * chunk_size)
    policy.encode_prompts.empty(1)
    for parameter in policy.trainable().values():
        parameter.grad = torch.zeros_like(parameter)
    widest = max(policy, training, key=lambda each: each.calls_per_prediction)
    drawn, trained = (each.schedule.objective_steps[:1].repeat(chunk_size) for each in (widest, training))
    with torch.no_grad(), _norms_as_on_gpus(policy):
        sampling = peak_bytes(lambda: widest.step_mean(latents, drawn, condition))
        with torch.enable_grad():
            update = peak_bytes(lambda: update_chunk(training, latents, trained, condition))
        images = outline.suite.compute.decode_chunk_size
        if images is None:
            of_one = peak_bytes(lambda: policy.decode(latents[:1]))
            images = _within(max(sampling, update), (1 + WORKSPACE_SHARE) * of_one, chunk_size)
            decoding = peak_bytes(lambda: torch.cat([policy.decode(piece) for piece in latents.split(images)]))
        else:
            decoding = peak_bytes(lambda: policy.decode(latents))
    return _Activations(sampling, update, decoding, images)


def _within(limit: int, of_one: int, most: int) -> int:
    """The largest of ``most``, its half, and so on, of which so many bytes each stay within the limit; at least 1."""
    size = most
    while size > 1 and size * of_one > limit:
        size //= 2
    return size


def update_chunk(policy: Policy, latents: Tensor, steps: Tensor, condition: Condition) -> None:
    """The most that an update asks of a chunk: the policy's graph, the reference beside it, then the backward pass."""
    log_probs = policy.log_probs(latents, latents, steps, condition)
    with torch.no_grad():
        policy.step_mean(latents, steps, condition, weights=REFERENCE)
    log_probs.sum().backward()


@contextmanager
def _norms_as_on_gpus(policy: Policy) -> Iterator[None]:
    """Autocast computes norms in fp32 on GPUs, but not on the CPU, on which the account is made."""
    modules = chain(*(network.modules() for network in (policy.denoiser, policy.frozen_copy) if network is not None))
    norms = [module for module in modules if isinstance(module, nn.GroupNorm | nn.LayerNorm)]
    hooks = [norm.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(), *inputs[1:])) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _networks(policy: Policy) -> list[nn.Module]:
    copy = [policy.frozen_copy] if policy.frozen_copy else []
    model = policy.model
    return [policy.denoiser, *copy, *model.prompt_encoders(), *chain(*model.frozen_parts().values())]


def _move_to_cpu(network: nn.Module) -> None:
    """Puts CPU tensors in the place of meta ones: autocast and some kernels know no meta device."""
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            moved = torch.empty_like(parameter, device="cpu")
            setattr(module, name, nn.Parameter(moved, requires_grad=parameter.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty_like(buffer, device="cpu"))


def _parameters(networks: Iterable[nn.Module]) -> int:
    return _size(chain(*(network.parameters() for network in networks)))


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
