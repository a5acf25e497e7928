"""Loss and gradient on the device, at every precision, compared with float64 on the CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from benchmarks.gpu.results import SectionFailed
from benchmarks.gpu.sections.settings import AcceptSettings, triton
from fcnlab.config.head import AnyHead, PaperHead
from fcnlab.config.loss import Reduction
from fcnlab.config.registry import builtin
from fcnlab.config.upsampler import AnyUpsampler
from fcnlab.config.variant import Backbone, Variant
from fcnlab.kernels.switch import is_triton_available
from fcnlab.models import FCN
from fcnlab.models.heads import CoarseHead
from fcnlab.training import hardware
from fcnlab.training.fused_loss import FusedUpsampleLoss, can_fuse
from fcnlab.training.losses import Loss
from fcnlab.trial.build import build_model

CLASSES = 6
BOUNDS: dict[str, tuple[float, float]] = {"fp32": (1e-5, 1e-3), "tf32": (1e-2, 5e-2), "bf16": (2e-2, 5e-2)}
"""Largest relative error of the loss and of the gradient."""
FACTORS = {"fp32": 5.0, "bf16": 2.0}
"""The gradient may also be this much further off than PyTorch's own on the CPU at the same precision, since a network
from random weights multiplies rounding errors: one of test_resnet in bf16 is off by a tenth on the CPU."""
BATCHES = 3
"""Batches that are tried: a rounding error that turns one ReLU around does so in one batch, a defect in all."""


@dataclass(frozen=True)
class Case:
    """A network and a loss.

    Attributes:
        name: name in the output.
        variant: the network.
        loss: arguments of `Loss`.
        num_classes: number of classes.
        size: batch, height, width of the images.
    """

    name: str
    variant: Variant
    loss: dict[str, Any] = field(default_factory=dict)
    num_classes: int = CLASSES
    size: tuple[int, int, int] = (4, 96, 128)


def paper_cases(settings: AcceptSettings) -> Iterator[Case]:
    """Yield the paper's heads on the paper's networks, which are much larger than the backbone of the other cases.

    Args:
        settings: settings of the run.
    """
    bilinear = cast(AnyUpsampler, builtin().get("upsampler", "bilinear"))
    for name in builtin().names("head"):
        head = cast(AnyHead, builtin().get("head", name))
        if isinstance(head, PaperHead):
            net: Any = "alexnet" if head.stride == 32 else "vgg16"
            if net == "alexnet" or not settings.smoke:
                variant = Variant(backbone=Backbone(paper=net), head=head, upsampler=bilinear)
                yield Case(f"head {name}", variant, size=(1, 48, 64))


def cases() -> Iterator[Case]:
    """Yield every other head, every upsampler and every loss of the registry."""
    small = Backbone(timm="test_resnet")
    heads, upsamplers = ({name: builtin().get(kind, name) for name in builtin().names(kind)} for kind in _KINDS)
    bilinear = cast(AnyUpsampler, upsamplers["bilinear"])
    for name, head in heads.items():
        head = cast(AnyHead, head)
        if head.type != "paper":
            yield Case(f"head {name}", Variant(backbone=small, head=head, upsampler=bilinear))
    fcn32s, fcn8s = cast(AnyHead, heads["fcn32s"]), cast(AnyHead, heads["fcn8s"])
    for name, upsampler in upsamplers.items():
        for which, head in {"fcn32s": fcn32s, "fcn8s": fcn8s}.items():
            variant = Variant(backbone=small, head=head, upsampler=cast(AnyUpsampler, upsampler))
            yield Case(f"upsampler {name}, {which}", variant)
    variant = Variant(backbone=small, head=fcn32s, upsampler=bilinear)
    for name, loss in _losses():
        yield Case(f"loss {name}", variant, loss)
    yield Case("2 classes", variant, num_classes=2)
    yield Case("21 classes", variant, num_classes=21)
    yield Case("150 classes", Variant(backbone=small, head=fcn8s, upsampler=bilinear), num_classes=150)
    yield Case("odd size", variant, size=(3, 75, 101))


_KINDS = ("head", "upsampler")


def _losses() -> Iterator[tuple[str, dict[str, Any]]]:
    for reduction in get_args(Reduction):
        for smoothing in (0.0, 0.1):
            for weights in (None, torch.linspace(0.2, 2.0, CLASSES)):
                name = f"{reduction}, smoothing {smoothing}, {'no ' if weights is None else ''}class weights"
                yield name, {"reduction": reduction, "label_smoothing": smoothing, "class_weights": weights}
    yield "focal", {"focal": 2.0}
    yield "ohem", {"ohem": (0.7, 0.0625)}
    yield "dice", {"dice": 1.0}
    yield "lovasz", {"lovasz": 0.5}
    yield "dice and lovasz only", {"weight": 0.0, "dice": 1.0, "lovasz": 1.0}


def losses(settings: AcceptSettings) -> dict[str, Any]:
    """Compare loss and parameter gradient, plain and fused, at every precision.

    The error of a gradient is ||g - reference|| / ||reference|| over all parameters.

    Args:
        settings: settings of the run.
    """
    return _compare(list(cases())[:: 8 if settings.smoke else 1], settings)


def paper_heads(settings: AcceptSettings) -> dict[str, Any]:
    """Compare as `losses` does, for the paper's heads on the paper's networks.

    Args:
        settings: settings of the run.
    """
    return _compare(list(paper_cases(settings)), settings)


def _compare(chosen: list[Case], settings: AcceptSettings) -> dict[str, Any]:
    device = torch.device(settings.device)
    precisions = [p for p in BOUNDS if p == "fp32" or settings.cuda]
    found: dict[str, dict[str, list[float]]] = {}
    wrong: list[str] = []
    worst = dict.fromkeys(precisions, 0.0)
    began = time.perf_counter()
    for case in chosen:
        try:
            for batch in range(BATCHES):
                errors = _errors(case, device, precisions, batch)
                if all(error.small for error in errors.values()):
                    break
        except Exception as error:  # noqa: BLE001 - the other cases run too
            wrong.append(f"{case.name}: {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        found[case.name] = {name: error.rounded() for name, error in errors.items()}
        wrong += [f"{case.name}, {name}: {error}" for name, error in errors.items() if not error.small]
        for precision in precisions:
            worst[precision] = max(worst[precision], *(e.gradient for e in errors.values() if e.precision == precision))
    result = {"bounds": BOUNDS, "worst": worst, "errors": found, "wrong": wrong}
    if wrong:
        raise SectionFailed(f"{len(wrong)} too far off in {len(found)} cases, the first: {wrong[0]}", result)
    seconds = time.perf_counter() - began
    largest = ", ".join(f"{precision} {error:.1e}" for precision, error in worst.items())
    return result | {"detail": f"{len(found)} cases in {seconds:.0f} s; largest error of a gradient: {largest}"}


class Error(NamedTuple):
    """Relative errors of a loss and its gradient at a precision, and the bound of the gradient's."""

    precision: str
    loss: float
    gradient: float
    bound: float

    @property
    def small(self) -> bool:
        """Return whether both are within their bounds; NaN is not."""
        return self.loss <= BOUNDS[self.precision][0] and self.gradient <= self.bound

    def rounded(self) -> list[float]:
        """Return loss, gradient and bound with three digits."""
        return [float(f"{value:.2e}") for value in (self.loss, self.gradient, self.bound)]

    def __str__(self) -> str:
        return f"loss {self.loss:.1e}, gradient {self.gradient:.1e} of at most {self.bound:.1e}"


def _errors(case: Case, device: torch.device, precisions: list[str], seed: int) -> dict[str, Error]:
    """Return the errors of one batch by way (plain, fused) and precision."""

    def log(step: str) -> None:
        print(f"{case.name}, batch {seed}: {step}", flush=True)  # the last line before a crash

    model = _model(case)
    images, labels = _batch(case, seed)
    cpu = torch.device("cpu")
    log("cpu float64")
    wanted, reference = _gradient(model.double(), _loss(case, cpu), images.double(), labels, "fp32")
    norm = _norm(reference)
    assert norm > 0, "the reference gradient is 0"
    bounds = {precision: BOUNDS[precision][1] for precision in precisions}
    model = model.float()
    for precision in {"fp32", "bf16"} & set(precisions):
        log(f"cpu {precision}")
        _, usual = _gradient(model, _loss(case, cpu), images, labels, precision)
        bounds[precision] = max(bounds[precision], FACTORS[precision] * _distance(usual, reference) / norm)
    if "tf32" in precisions:
        bounds["tf32"] = max(bounds["tf32"], bounds["bf16"])
    hardware.move_to_device(model, device)
    plain = _loss(case, device)
    ways: dict[str, Loss | FusedUpsampleLoss] = {"plain": plain}
    if can_fuse(plain, model.head, device):
        ways["fused"] = FusedUpsampleLoss(plain, cast(CoarseHead, model.head))
        if is_triton_available(device):
            ways["fused, without Triton"] = ways["fused"]
    found = {}
    images = images.to(device, memory_format=torch.channels_last)
    labels = labels.to(device)
    for way, loss in ways.items():
        for precision in precisions:
            log(f"{device.type} {way} {precision}")
            with triton("0") if "without" in way else nullcontext():
                value, gradient = _gradient(model, loss, images, labels, precision)
            off = _distance(gradient, reference) / norm
            found[f"{way} {precision}"] = Error(precision, abs(value - wanted) / abs(wanted), off, bounds[precision])
    return found


def _model(case: Case) -> FCN:
    """Build the network; no part of the head stays at 0, so that every parameter has a gradient."""
    model = build_model(case.variant, case.num_classes, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return model.train()


def _batch(case: Case, seed: int) -> tuple[Tensor, Tensor]:
    """Return smooth images and labels in patches, a tenth of them ignored."""
    batch, height, width = case.size
    generator = torch.Generator().manual_seed(2 + seed)
    coarse = torch.randn(batch, 3, -(-height // 8), -(-width // 8), generator=generator)
    images = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    classes = torch.randint(0, case.num_classes, (batch, -(-height // 8), -(-width // 8)), generator=generator)
    labels = classes.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width].to(torch.uint8)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    return images, labels


def _loss(case: Case, device: torch.device) -> Loss:
    weights = case.loss.get("class_weights")
    return Loss(**case.loss | ({"class_weights": weights.to(device)} if weights is not None else {}))


def _gradient(
    model: FCN, loss: Loss | FusedUpsampleLoss, images: Tensor, labels: Tensor, precision: str
) -> tuple[float, list[Tensor]]:
    """Return the loss and the gradient of every parameter, float64 on the CPU."""
    device = images.device
    in_precision = (
        nullcontext if images.dtype == torch.float64 else hardware.create_autocast(device, cast(Any, precision))
    )
    for parameter in model.parameters():
        parameter.grad = None
    if isinstance(loss, FusedUpsampleLoss):
        with in_precision():
            coarse = model.coarse_scores(images)
        value = loss(coarse, labels)
    else:
        with in_precision():
            scores, auxiliary = model.training_scores(images)
        value = loss(scores, labels, auxiliary)
    value.backward()
    gradients = [
        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in model.parameters()
    ]
    return float(value.detach()), [gradient.detach().cpu().double() for gradient in gradients]


def _norm(tensors: list[Tensor]) -> float:
    return float(torch.stack([tensor.norm() for tensor in tensors]).norm())


def _distance(one: list[Tensor], other: list[Tensor]) -> float:
    return _norm([a - b for a, b in zip(one, other, strict=True)])
