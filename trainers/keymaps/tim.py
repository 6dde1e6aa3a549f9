"""Key names of TIM (BrainCog-X/Brain-Cog, examples/TIM) and of its port in STEP, which has the same."""

from __future__ import annotations

from trainers.keymaps import spikformer
from trainers.keymaps.keymap import BRAINCOG_ONLY, KeyMap

_TIM = r"(?P<block>block\.\d+)\.attn\.TIM\."
_RULES = (
    (_TIM + r"interactor\.(?P<rest>.+)", r"\g<block>.attn.interaction.interactor.\g<rest>"),
    (_TIM + r"(?P<side>in|out)_lif(?P<rest>\..+)?", r"\g<block>.attn.interaction.\g<side>_neuron\g<rest>"),
    *spikformer.RULES,
)

KEYMAPS = (
    KeyMap(
        source="BrainCog-X/Brain-Cog, examples/TIM, and Fancyssc/STEP, tim",
        rules=_RULES,
        ignored=BRAINCOG_ONLY,
        dead=spikformer.DEAD,
    ),
)
