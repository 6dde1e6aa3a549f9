"""Key names of Spikingformer (zhouchenlin2096/Spikingformer, its three folders) and of its port in STEP."""

from __future__ import annotations

from trainers.keymaps.keymap import BRAINCOG_ONLY, KeyMap, layer_rules

_BLOCK = r"(?P<block>block\.\d+)"
_SHARED = (
    (_BLOCK + r"\.attn\.proj_lif(?P<rest>\..+)?", r"\g<block>.attn.neuron\g<rest>"),
    (_BLOCK + r"\.attn\.attn_lif(?P<rest>\..+)?", r"\g<block>.attn.product.neuron\g<rest>"),
    *layer_rules(_BLOCK + r"\.attn\.(?P<name>[qkv])_{}", r"\g<block>.attn.projections.\g<name>"),
    *layer_rules(_BLOCK + r"\.attn\.proj_{}", r"\g<block>.attn.proj"),
    (_BLOCK + r"\.(?P<rest>norm[12]\..+)", r"\g<block>.\g<rest>"),
    (r"head\..+", r"\g<0>"),
)
_OFFICIAL = (*_SHARED, *layer_rules(_BLOCK + r"\.mlp\.mlp(?P<fc>[12])_{}", r"\g<block>.mlp.fc\g<fc>"))
_DEAD = (r"block\.\d+\.norm[12]\..+",)

CIFAR = KeyMap(
    source="zhouchenlin2096/Spikingformer, cifar10 and cifar100",
    rules=(*_OFFICIAL, *layer_rules(r"patch_embed\.block(?P<stage>[0-4])_{}", r"patch_embed.stages.\g<stage>")),
    dead=_DEAD,
)
IMAGENET_AND_EVENTS = KeyMap(
    source="zhouchenlin2096/Spikingformer, imagenet and event data",
    rules=(
        *_OFFICIAL,
        *layer_rules(r"patch_embed\.proj_{}", r"patch_embed.stages.0"),
        *layer_rules(r"patch_embed\.proj(?P<stage>[1-4])_{}", r"patch_embed.stages.\g<stage>"),
    ),
    dead=_DEAD,
)
# The port's projection has no bias, and it has no layer normalisations.
STEP = KeyMap(
    source="Fancyssc/STEP, spikingformer_cifar, with proj_bias: false and keep_dead_parameters: false",
    rules=(
        *_SHARED,
        *layer_rules(_BLOCK + r"\.mlp\.(?P<fc>fc[12])_{}", r"\g<block>.mlp.\g<fc>"),
        *layer_rules(r"patch_embed\.proj_{}", r"patch_embed.stages.0"),
        *layer_rules(r"patch_embed\.proj_{}(?P<stage>[123])", r"patch_embed.stages.\g<stage>"),
        *layer_rules(r"patch_embed\.rpe_{}", r"patch_embed.stages.4"),
    ),
    ignored=BRAINCOG_ONLY,
    dead=_DEAD,
)
KEYMAPS = (CIFAR, IMAGENET_AND_EVENTS, STEP)
