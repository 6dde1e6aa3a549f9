"""Key names of QKFormer (zhouchenlin2096/QKFormer), whose folders differ, and of its ports in STEP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trainers.keymaps.keymap import BRAINCOG_ONLY, KeyMap, layer_rules

# The first embedding's convolutions, and where ours are.
_CIFAR_STEM = {"proj": "stem.0", "proj1": "main.0"}
_IMAGENET_STEM = {"proj": "stem.0", "proj1": "main.0", "proj2": "main.1"}
_DVS_STEM = {"proj": "stem.0", "proj1": "stem.1", "proj2": "main.0", "proj3": "main.1"}

_NUMBER_FIRST, _NUMBER_LAST = r"(?P<fc>[12])_{}", r"_{}(?P<fc>[12])"


def _rules(
    stages: int, first: Mapping[str, str], later: str, last_attention: str, mlp: str
) -> Iterator[tuple[str, str]]:
    """Yield the rules of one folder.

    Args:
        stages: number of stages.
        first: see above.
        later: published name of the first convolution of the later embeddings.
        last_attention: published name of the attention of the last stage.
        mlp: expression of the published names of an MLP's layers.
    """
    for stage in range(stages):
        ours = f"stages.{stage}"
        convolutions = first if stage == 0 else {later: "main.0", "proj4": "main.1"}
        for published, name in {**convolutions, "proj_res": "shortcut"}.items():
            yield from layer_rules(rf"patch_embed{stage + 1}\.{published}_{{}}", f"{ours}.embed.{name}")
        block = rf"stage{stage + 1}\.(?P<block>\d+)\."
        attention = block + (last_attention if stage == stages - 1 else "tssa")
        ours += r".blocks.\g<block>"
        yield from layer_rules(attention + r"\.(?P<name>[qkv])_{}", ours + r".attn.projections.\g<name>")
        yield (attention + r"\.attn_lif(?P<rest>\..+)?", ours + r".attn.product.neuron\g<rest>")
        yield (attention + r"\.proj_lif(?P<rest>\..+)?", ours + r".attn.proj_neuron\g<rest>")
        yield from layer_rules(attention + r"\.proj_{}", ours + r".attn.proj")
        yield from layer_rules(block + r"mlp\." + mlp, ours + r".mlp.fc\g<fc>")
    yield (r"head\..+", r"\g<0>")


CIFAR = KeyMap(
    source="zhouchenlin2096/QKFormer, cifar10 and cifar100",
    rules=tuple(_rules(3, _CIFAR_STEM, "proj3", "ssa", "mlp" + _NUMBER_FIRST)),
)
IMAGENET = KeyMap(
    source="zhouchenlin2096/QKFormer, imagenet",
    rules=tuple(_rules(3, _IMAGENET_STEM, "proj3", "attn", "fc" + _NUMBER_FIRST)),
)
DVS = KeyMap(
    source="zhouchenlin2096/QKFormer, cifar10-dvs and dvs128-gesture",
    rules=tuple(_rules(2, _DVS_STEM, "proj", "ssa", "mlp" + _NUMBER_FIRST)),
)
STEP_CIFAR = KeyMap(
    source="Fancyssc/STEP, qkformer_cifar",
    rules=tuple(_rules(3, _CIFAR_STEM, "proj3", "ssa", "fc" + _NUMBER_LAST)),
    ignored=BRAINCOG_ONLY,
)
STEP_IMAGENET = KeyMap(
    source="Fancyssc/STEP, qkformer_imagenet",
    rules=tuple(_rules(3, _IMAGENET_STEM, "proj3", "ssa", "fc" + _NUMBER_LAST)),
    ignored=BRAINCOG_ONLY,
)
KEYMAPS = (CIFAR, IMAGENET, DVS, STEP_CIFAR, STEP_IMAGENET)
