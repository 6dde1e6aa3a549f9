"""Key names of the Spike-driven Transformer (BICLab/Spike-Driven-Transformer) and of its port in STEP."""

from __future__ import annotations

from trainers.keymaps.keymap import BRAINCOG_ONLY, KeyMap, layer_rules

_BLOCK = r"(?P<block>block\.\d+)"
_SHARED = (
    *layer_rules(r"patch_embed\.proj_{}", r"patch_embed.stages.0"),
    *layer_rules(r"patch_embed\.proj_{}(?P<stage>[12])", r"patch_embed.stages.\g<stage>"),
    (r"patch_embed\.proj_lif3(?P<rest>\..+)?", r"patch_embed.rpe.neuron\g<rest>"),
    *layer_rules(r"patch_embed\.proj_{}3", r"patch_embed.last"),
    (r"patch_embed\.rpe_lif(?P<rest>\..+)?", r"patch_embed.unused_neuron\g<rest>"),
    *layer_rules(r"patch_embed\.rpe_{}", r"patch_embed.rpe"),
    (_BLOCK + r"\.attn\.shortcut_lif(?P<rest>\..+)?", r"\g<block>.attn.neuron\g<rest>"),
    (_BLOCK + r"\.attn\.talking_heads_lif(?P<rest>\..+)?", r"\g<block>.attn.product.neuron\g<rest>"),
    (_BLOCK + r"\.attn\.attn_lif(?P<rest>\..+)?", r"\g<block>.attn.unused_neuron\g<rest>"),
    (_BLOCK + r"\.attn\.talking_heads\.weight", r"\g<block>.attn.talking_heads.weight"),
    *layer_rules(_BLOCK + r"\.attn\.(?P<name>[qkv])_{}", r"\g<block>.attn.projections.\g<name>"),
    *layer_rules(_BLOCK + r"\.attn\.proj_{}", r"\g<block>.attn.proj"),
    (r"head_lif(?P<rest>\..+)?", r"head_neuron\g<rest>"),
    (r"head\..+", r"\g<0>"),
)
_DEAD = (r"patch_embed\.unused_neuron\..+", r"block\.\d+\.attn\.(unused_neuron|talking_heads)\..+")

KEYMAPS = (
    KeyMap(
        source="BICLab/Spike-Driven-Transformer",
        rules=(*_SHARED, *layer_rules(_BLOCK + r"\.mlp\.(?P<name>fc[12])_{}", r"\g<block>.mlp.\g<name>")),
        dead=_DEAD,
    ),
    KeyMap(
        source="Fancyssc/STEP, sdt_cifar and sdt_imagenet",
        rules=(*_SHARED, *layer_rules(_BLOCK + r"\.mlp\.fc_{}(?P<name>[12])", r"\g<block>.mlp.fc\g<name>")),
        ignored=BRAINCOG_ONLY,
        dead=_DEAD,
    ),
)
