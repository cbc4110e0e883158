"""The models of the conformance table: their families, input sizes, and a shallow twin of each."""

from __future__ import annotations

import torch
from torch import nn

# Each torchvision family with the member that every runtime gets at full size.
FAMILIES = {
    "alexnet": "alexnet", "convnext": "convnext_tiny", "densenet": "densenet121",
    "efficientnet_v2": "efficientnet_v2_s", "efficientnet": "efficientnet_b0", "googlenet": "googlenet",
    "inception": "inception_v3", "maxvit": "maxvit_t", "mnasnet": "mnasnet1_0",
    "mobilenet_v2": "mobilenet_v2", "mobilenet_v3": "mobilenet_v3_large", "regnet_x": "regnet_x_400mf",
    "regnet_y": "regnet_y_400mf", "resnext": "resnext50_32x4d", "resnet": "resnet18",
    "shufflenet_v2": "shufflenet_v2_x1_0", "squeezenet": "squeezenet1_1", "swin_v2": "swin_v2_t",
    "swin": "swin_t", "vgg": "vgg11_bn", "vit": "vit_b_16", "wide_resnet": "wide_resnet50_2",
}  # fmt: skip
LARGEST = 150_000_000  # parameters
TIMM = (
    "resnetv2_50", "seresnet50", "ecaresnet50d", "res2net50_26w_4s", "resnest14d", "skresnet18", "dla34",
    "hrnet_w18_small", "cspresnet50", "ghostnet_100", "tinynet_e", "repvgg_a0", "mobileone_s0",
    "convmixer_768_32", "mixer_s32_224", "resmlp_12_224", "poolformer_s12", "deit_tiny_patch16_224",
    "pit_ti_224", "levit_128s", "coat_lite_tiny", "edgenext_xx_small", "fastvit_t8", "xcit_nano_12_p16_224",
)  # fmt: skip
_SIDES = {"inception": 299, "swin_v2": 256}  # 224 for the others
# What a shallow twin gets: enough for each downsampling stage, and for the sizes that are fixed.
_SMALL = {"alexnet": 64, "inception": 96, "maxvit": 224, "vit": 224}


def family(name: str) -> str:
    """The torchvision family of a model; the name itself for another."""
    return next((key for key in FAMILIES if name.startswith(key)), name)


def torchvision_names() -> list[str]:
    """Every classification model of torchvision with fewer than LARGEST parameters."""
    from torchvision import models

    found = []
    for name in models.list_models(module=models):
        (weights, *_) = models.get_model_weights(name)
        if weights.meta["num_params"] < LARGEST:
            found.append(name)
    return found


def cells(runtimes: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """(model, runtime, "full" or "shallow") of the whole table: ONNX gets each torchvision model whole, the
    others one of each family whole and the rest shallow; timm's are whole for ONNX."""
    found = []
    for runtime in runtimes:
        for name in torchvision_names():
            whole = runtime == "onnx" or name in FAMILIES.values()
            found.append((f"torchvision:{name}", runtime, "full" if whole else "shallow"))
        found += [(f"timm:{name}", runtime, "full" if runtime == "onnx" else "shallow") for name in TIMM]
    return found


def side(model: str, size: str) -> int:
    """Height and width of the input: the model's own at full size, small for a shallow twin."""
    source, name = model.split(":")
    if source == "timm":
        import timm

        given = timm.get_pretrained_cfg(name)
        own = given.input_size[-1] if given is not None else 224
        return own if size == "full" or given is None or given.fixed_input_size else min(own, 64)
    own = _SIDES.get(family(name), 224)
    return own if size == "full" else _SMALL.get(family(name), 64)


def shallow(module: nn.Module, x: torch.Tensor) -> int:
    """Keep two of each run of equal blocks, in place; returns how many blocks went.

    A block goes where the two before it have the same class and parameters' shapes, and its output has the
    shape of its input: what the rest sees stays as it was. x: an input of the model.
    """
    shapes: dict[nn.Module, tuple[object, object]] = {}

    def note(block: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if inputs and isinstance(inputs[0], torch.Tensor) and isinstance(output, torch.Tensor):
            shapes[block] = inputs[0].shape, output.shape

    hooks = [block.register_forward_hook(note) for block in module.modules()]
    try:
        with torch.no_grad():
            module(x)
    finally:
        for hook in hooks:
            hook.remove()

    def look(block: nn.Module) -> tuple[object, ...]:
        parameters = [(name, tuple(p.shape)) for name, p in block.named_parameters()]
        return type(block), parameters, shapes.get(block)

    gone = 0
    for parent in list(module.modules()):
        if not isinstance(parent, nn.Sequential):
            continue
        kept: list[tuple[str, nn.Module]] = []
        for name, block in parent.named_children():
            same = len(kept) > 1 and all(look(other) == look(block) for _, other in kept[-2:])
            through = block in shapes and shapes[block][0] == shapes[block][1]
            if same and through and any(True for _ in block.parameters()):
                gone += 1
            else:
                kept.append((name, block))
        if len(kept) < len(parent):
            for name in list(parent._modules):
                del parent._modules[name]
            for name, block in kept:
                parent.add_module(name, block)
    return gone
