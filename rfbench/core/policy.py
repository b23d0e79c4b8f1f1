"""The model being finetuned, as a policy over denoising steps, and its frozen reference."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rfbench.core import keyed_random
from rfbench.core.conditioning import Condition, PromptEncoder, select, stack
from rfbench.core.finite import Batch, NonFiniteImagesError
from rfbench.core.meter import Counters
from rfbench.core.model import Model
from rfbench.core.noising.process import Process
from rfbench.core.schedule import Schedule, log_density
from rfbench.errors import InputError, InterfaceError, did_you_mean
from rfbench.hub.weights import require_equal, shapes_of
from rfbench.suite.suite import Finetune, Sampler, Suite

ADAPTER = "policy"
POLICY, REFERENCE = "policy", "reference"  # whose weights predict; a snapshot has a name of its own
ADAPTABLE = (nn.Linear, nn.Conv2d)  # the layers of a denoiser that peft puts a LoRA on
COMPUTE_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Policy:
    """p_theta(x_{t-1} | x_t, c) = N(mean, sigma_t^2 I), with guidance, and the same with other weights.

    Sampling, training and reference share ``predict``: one code path, one guidance, one dtype. What it predicts, noise
    or velocity, is the model's `Process`'s matter. Where ``weights`` are asked for, it is ``"policy"``, ``"reference"``
    (the base model, frozen) or the name of a snapshot.

    Args:
        precision: what the denoiser computes in: "fp32" (or "tf32", which `Processes` allows), or "bf16" or "fp16" by
            autocast over fp32 weights.
        decode_chunk_size: images decoded at once; None decodes what it is given.
        compiled_rows: the rows of a network call, for which the denoiser is compiled; None does not compile.
    """

    def __init__(
        self,
        model: Model,
        schedule: Schedule,
        *,
        guidance_scale: float,
        finetune: Finetune,
        precision: str = "fp32",
        decode_chunk_size: int | None = None,
        compiled_rows: int | None = None,
        counters: Counters | None = None,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.schedule = schedule
        self.guidance_scale = guidance_scale
        self._compute_dtype = COMPUTE_DTYPES[precision]
        self._decode_chunk_size, self._compiled_rows = decode_chunk_size, compiled_rows
        self.counters = counters or Counters()
        self.encode_prompts = PromptEncoder(model.encode, model.unconditional)
        self._frozen = _make_trainable(model, finetune, seed)
        self._snapshots: dict[str, dict[str, Tensor]] = {}
        for denoiser in filter(None, (model.denoiser, self._frozen)):
            store_frozen_weights(denoiser, self._compute_dtype)
            if compiled_rows is not None:
                denoiser.compile(dynamic=False)

    def drawing_with(self, sampler: Sampler) -> Policy:
        """The same weights, snapshots and counters, on the chain and with the guidance of another sampler."""
        other = copy.copy(self)
        other.schedule = self.process.chain(sampler).to(self.schedule.sigma.device)
        other.guidance_scale = sampler.guidance_scale
        return other

    @property
    def process(self) -> Process:
        """How noise and data mix, and what the network's output is."""
        return self.model.process

    @property
    def denoiser(self) -> nn.Module:
        return self.model.denoiser

    @property
    def frozen_copy(self) -> nn.Module | None:
        """The reference, where it is a network of its own; None where it is the policy's without its adapter."""
        return self._frozen

    @property
    def calls_per_prediction(self) -> int:
        """Latents that go through the denoiser for one prediction: two with guidance."""
        return 2 if self.guidance_scale != 1 else 1

    @property
    def adapter(self) -> str | None:
        """The name of the adapter that is trained; None where all weights are."""
        return ADAPTER if self._frozen is None else None

    @property
    def needs_loss_scale(self) -> bool:
        """Whether small gradients would underflow in the dtype that the denoiser computes in."""
        return self._compute_dtype == torch.float16

    def trainable(self) -> dict[str, nn.Parameter]:
        """The finetuned parameters by name."""
        return {name: p for name, p in self.denoiser.named_parameters() if p.requires_grad}

    def state_dict(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.trainable().items()}

    @torch.no_grad()
    def reference_sums(self) -> list[float]:
        """The sum of each frozen weight of the reference: equal as long as nothing has changed it."""
        network = self._frozen or self.denoiser
        return [float(p.sum(dtype=torch.float64)) for p in network.parameters() if not p.requires_grad]

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over what ``state_dict`` gave, exactly."""
        trainable = self.trainable()
        require_equal(shapes_of(trainable), shapes_of(state), "the checkpoint", "what this suite trains")
        for name, parameter in trainable.items():
            parameter.copy_(state[name])

    @torch.no_grad()
    def take_snapshot(self, name: str) -> None:
        """Keeps the trained weights as they are now, under ``name``."""
        self._snapshots[name] = {key: p.detach().clone() for key, p in self.trainable().items()}

    @torch.no_grad()
    def blend_snapshot(self, name: str, decay: float) -> None:
        """Moves a snapshot towards the policy: ``decay`` times itself and ``1 - decay`` times the weights of now."""
        for key, parameter in self.trainable().items():
            self._snapshots[name][key].lerp_(parameter, 1 - decay)

    def snapshots(self) -> dict[str, dict[str, Tensor]]:
        """The weights of every snapshot, for a checkpoint."""
        return self._snapshots

    @torch.no_grad()
    def load_snapshots(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Takes over what ``snapshots`` gave."""
        for name, weights in state.items():
            for key, kept in self._snapshots[name].items():
                kept.copy_(weights[key])

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        condition: Condition,
        *,
        weights: str = POLICY,
        guided: bool = True,
    ) -> Tensor:
        """The network's output ``(m, ...)`` for latents ``(m, ...)`` at ``timesteps`` ``(m,)``, guided.

        Both branches of the guidance carry gradient; a snapshot's prediction has none.
        """
        guided = guided and self.calls_per_prediction == 2
        rows = len(latents)
        network_latents, network_timesteps = self.process.network_latents(latents, timesteps), timesteps
        if guided:
            condition = stack([self.encode_prompts.empty(rows), condition])
            network_latents = network_latents.repeat(2, *[1] * (latents.dim() - 1))
            network_timesteps = timesteps.repeat(2)
        with self._network(weights) as denoiser, self._autocast(latents.device):
            raw = self._call(denoiser, network_latents, network_timesteps, condition).to(latents.dtype)
        self._count(raw)
        output = self.process.output_of(raw, network_latents, network_timesteps)
        if guided:
            unconditional, conditional = output.chunk(2)
            output = unconditional + self.guidance_scale * (conditional - unconditional)
        return output

    def predict_clean(
        self, latents: Tensor, timesteps: Tensor, condition: Condition, *, weights: str = POLICY, guided: bool = True
    ) -> Tensor:
        """Predicted x_0 ``(m, ...)`` of latents at ``timesteps``, as the network's output tells it."""
        output = self.predict(latents, timesteps, condition, weights=weights, guided=guided)
        return self.process.clean_from(output, latents, timesteps)

    def step_mean(self, latents: Tensor, steps: Tensor, condition: Condition, *, weights: str = POLICY) -> Tensor:
        """Mean of the denoising step ``steps`` ``(m,)`` from ``latents`` ``(m, ...)``."""
        output = self.predict(latents, self.schedule.timesteps[steps], condition, weights=weights)
        return self.schedule.mean(latents, output, steps)

    def log_probs(
        self, latents: Tensor, next_latents: Tensor, steps: Tensor, condition: Condition, *, weights: str = POLICY
    ) -> Tensor:
        """Log-density ``(m,)`` of ``next_latents`` under the steps from ``latents``, in nats per latent dimension."""
        mean = self.step_mean(latents, steps, condition, weights=weights)
        return log_density(next_latents, mean, self.schedule.sigma[steps])

    def denoising_loss(
        self, clean: Tensor, noise: Tensor, timesteps: Tensor, condition: Condition, *, guided: bool = False
    ) -> Tensor:
        """Squared error ``(m,)`` of the output at x_t, a mean over dimensions; unguided, as in pretraining."""
        latents = self.process.add_noise(clean, noise, timesteps)
        output = self.predict(latents, timesteps, condition, guided=guided)
        return (self.process.target(clean, noise, timesteps) - output).square().flatten(1).mean(1)

    @torch.no_grad()
    def decode(self, latents: Tensor, batch: Batch | None = None) -> Tensor:
        """8-bit RGB images ``(m, 3, H, W)`` of clean latents; a ``NonFiniteError`` where the decoder gives no image."""
        size = self._decode_chunk_size or len(latents)
        pieces = []
        for start in range(0, len(latents), size):
            try:
                pieces.append(self.model.decode(latents[start : start + size]))
            except NonFiniteImagesError as error:
                if batch is None:
                    raise
                batch.fail([start + row for row in error.rows], "the decoded pixels are")
        return torch.cat(pieces)

    def _call(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """The network's output; a compiled one gets the rows that it was compiled for, the last one repeated."""
        rows = len(latents)
        if self._compiled_rows is not None and rows % self._compiled_rows:
            last = torch.arange(rows + -rows % self._compiled_rows, device=latents.device).clamp(max=rows - 1)
            latents, timesteps, condition = latents[last], timesteps[last], select(condition, last)
        return self.model.predict(denoiser, latents, timesteps, condition)[:rows]

    def _count(self, prediction: Tensor) -> None:
        rows = len(prediction)
        self.counters.denoiser_forwards += rows

        def count_backward(_: Tensor) -> None:
            self.counters.denoiser_backwards += rows

        if prediction.requires_grad:
            prediction.register_hook(count_backward)

    def _autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, dtype=self._compute_dtype, enabled=self._compute_dtype != torch.float32)

    @contextmanager
    def _network(self, weights: str) -> Iterator[nn.Module]:
        """The denoiser with the weights of that name."""
        if weights == POLICY:
            yield self.denoiser
        elif weights != REFERENCE:
            if weights not in self._snapshots:
                kept = ", ".join(map(repr, (POLICY, REFERENCE, *self._snapshots)))
                raise InterfaceError(f"there are no weights {weights!r} to predict with, only {kept}; see `snapshots`")
            with torch.no_grad(), self._swapped(self._snapshots[weights]):
                yield self.denoiser
        elif self._frozen is not None:
            yield self._frozen
        else:
            self.denoiser.disable_adapters()  # type: ignore[operator]
            try:
                yield self.denoiser
            finally:
                self.denoiser.enable_adapters()  # type: ignore[operator]

    @contextmanager
    def _swapped(self, weights: dict[str, Tensor]) -> Iterator[None]:
        """Lends the denoiser other storages: a graph that holds its own weights stays valid, and nothing is copied."""
        trainable = self.trainable()
        own = {name: parameter.data for name, parameter in trainable.items()}
        try:
            for name, parameter in trainable.items():
                parameter.data = weights[name]
            yield
        finally:
            for name, parameter in trainable.items():
                parameter.data = own[name]


def make_policy(
    suite: Suite, model: Model, device: torch.device, *, counters: Counters | None = None, seed: int = 0
) -> Policy:
    """The policy on ``model``, itself on ``device``, that a suite trains; ``seed`` is of a LoRA's first weights."""
    compute, sampler = suite.compute, suite.sampler
    check_trainable(model, suite)
    if compute.gradient_checkpointing:
        model.denoiser.enable_gradient_checkpointing()  # type: ignore[operator]  # diffusers' mixin
    return Policy(
        model,
        model.process.chain(sampler).to(device),
        guidance_scale=sampler.guidance_scale,
        finetune=suite.finetune,
        precision=compute.precision,
        decode_chunk_size=compute.decode_chunk_size,
        compiled_rows=compute.pairs_per_call if compute.compile else None,
        counters=counters,
        seed=seed,
    )


def check_trainable(model: Model, suite: Suite) -> None:
    """An ``InputError`` where the denoiser, with or without numbers, cannot be trained as the suite says."""
    denoiser = model.denoiser
    if suite.compute.gradient_checkpointing and not hasattr(denoiser, "enable_gradient_checkpointing"):
        raise InputError(f"compute.gradient_checkpointing is on, but {type(denoiser).__name__} has none; turn it off")
    if suite.finetune.method == "lora":
        _check_lora(denoiser, suite.finetune.modules(model.lora_modules))


def store_frozen_weights(denoiser: nn.Module, dtype: torch.dtype) -> None:
    """Keeps frozen linear and convolution weights in the dtype that autocast computes them in.

    Autocast casts them to it at every call, so no result changes by a bit, and their memory halves. Norms keep fp32
    weights, as autocast computes them in fp32.
    """
    for module in denoiser.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)


def _check_lora(denoiser: nn.Module, targets: tuple[str, ...]) -> None:
    """An ``InputError`` where ``denoiser``, with or without numbers, can have no LoRA on the modules of these names."""
    if not hasattr(denoiser, "add_adapter"):
        raise InputError(
            f"finetune.method is 'lora', but {type(denoiser).__name__} takes no adapters; "
            "use --set finetune.method=full"
        )
    modules = {name: module for name, module in denoiser.named_modules() if name}
    endings = {ending for name, module in modules.items() if isinstance(module, ADAPTABLE) for ending in _endings(name)}
    for target in targets:
        kinds = {type(modules[name]).__name__ for name in modules if target in _endings(name)}
        if not kinds:
            raise InputError(
                f"finetune.target_modules names {target!r}, which no module of {type(denoiser).__name__} is called"
                f"{did_you_mean(target, endings)}"
            )
        other = sorted(kinds - {kind.__name__ for kind in _adaptable_kinds(modules.values())})
        if other:
            inside = sorted({ending for ending in endings if ending.startswith(f"{target}.")})
            raise InputError(
                f"finetune.target_modules names {target!r}, which is a {other[0]}; a LoRA is put on linear and "
                f"convolution layers{f', such as {inside[0]!r}' if inside else ''}"
            )


def _endings(name: str) -> list[str]:
    """What a module may be called as a target: the end of its name from any dot on."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _adaptable_kinds(modules: Iterable[nn.Module]) -> set[type[nn.Module]]:
    return {type(module) for module in modules if isinstance(module, ADAPTABLE)}


def _make_trainable(model: Model, finetune: Finetune, seed: int) -> nn.Module | None:
    """Readies the denoiser for training in place; returns the frozen reference, or None when an adapter is trained."""
    denoiser, modules = model.denoiser, list(finetune.modules(model.lora_modules))
    denoiser.eval()  # dropout would make the first ratio differ from 1
    if finetune.method == "full":
        frozen = copy.deepcopy(denoiser).requires_grad_(False)
        denoiser.requires_grad_(True)
        return frozen
    from peft import LoraConfig

    denoiser.requires_grad_(False)
    config = LoraConfig(
        r=finetune.rank,
        lora_alpha=finetune.rank if finetune.alpha is None else finetune.alpha,
        init_lora_weights="gaussian",
        target_modules=modules,
    )
    with torch.random.fork_rng(devices=[]):  # peft draws its first weights from the global generator
        torch.manual_seed(keyed_random.generator(seed, "lora").initial_seed())
        try:
            denoiser.add_adapter(config, adapter_name=ADAPTER)  # type: ignore[operator]  # diffusers' PEFT mixin
        except ValueError as error:
            raise InputError(f"finetune.target_modules {modules} take no LoRA: {error}") from None
    return None
