"""Key names of Spikformer (ZK-Zhou/spikformer, its three folders) and of its ports in STEP."""

from __future__ import annotations

from trainers.keymaps.keymap import BRAINCOG_ONLY, KeyMap, layer_rules

_BLOCK = r"(?P<block>block\.\d+)"
RULES = (
    *layer_rules(r"patch_embed\.proj_{}", r"patch_embed.stages.0"),
    *layer_rules(r"patch_embed\.proj_{}(?P<stage>[123])", r"patch_embed.stages.\g<stage>"),
    *layer_rules(r"patch_embed\.rpe_{}", r"patch_embed.rpe"),
    (_BLOCK + r"\.attn\.attn_lif(?P<rest>\..+)?", r"\g<block>.attn.product.neuron\g<rest>"),
    *layer_rules(_BLOCK + r"\.attn\.(?P<name>[qkv])_{}", r"\g<block>.attn.projections.\g<name>"),
    (_BLOCK + r"\.attn\.proj_lif(?P<rest>\..+)?", r"\g<block>.attn.proj_neuron\g<rest>"),
    *layer_rules(_BLOCK + r"\.attn\.proj_{}", r"\g<block>.attn.proj"),
    *layer_rules(_BLOCK + r"\.mlp\.(?P<name>fc[12])_{}", r"\g<block>.mlp.\g<name>"),
    (_BLOCK + r"\.(?P<rest>norm[12]\..+)", r"\g<block>.\g<rest>"),
    (r"head\..+|norm\..+|pos_embed", r"\g<0>"),
)
DEAD = (r"block\.\d+\.norm[12]\..+", r"norm\..+", r"pos_embed")

KEYMAPS = (
    KeyMap(source="ZK-Zhou/spikformer", rules=RULES, dead=DEAD),
    # STEP's port for CIFAR leaves the unused layer normalisations out.
    KeyMap(
        source="Fancyssc/STEP, spikformer_imagenet, and with keep_dead_parameters: false spikformer_cifar",
        rules=RULES,
        ignored=BRAINCOG_ONLY,
        dead=DEAD,
    ),
)
