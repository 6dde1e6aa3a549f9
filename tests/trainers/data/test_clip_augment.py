"""Augmentation of clips of event cameras."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from configs.schema import Augmentation
from trainers.data.clip_augment import OPERATIONS, ClipTransform, apply_operation, make_clip_transform


def clip() -> Tensor:
    return torch.randint(1, 5, (3, 2, 32, 32), generator=torch.Generator().manual_seed(0)).float()


def drawn(name: str, times: int = 40) -> list[Tensor]:
    torch.manual_seed(0)
    return [apply_operation(clip(), name) for _ in range(times)]


@pytest.mark.parametrize("name", OPERATIONS)
def test_counts_stay_counts_and_all_frames_move_alike(name: str) -> None:
    frame = clip()[0, 0]
    torch.manual_seed(0)
    same = apply_operation(frame.expand(3, 2, -1, -1).clone(), name)
    assert torch.equal(same, same[:1, :1].expand_as(same))
    assert set(same.unique().tolist()) <= {0.0, *frame.unique().tolist()}


def test_identity_changes_nothing_and_the_rest_something() -> None:
    for name in OPERATIONS:
        changed = [not torch.equal(moved, clip()) for moved in drawn(name)]
        assert any(changed) == (name != "identity")


@pytest.mark.parametrize(("name", "axis"), [("shift_x", -1), ("shift_y", -2)])
def test_shifts_are_whole_pixels_up_to_five_in_both_directions(name: str, axis: int) -> None:
    seen = set()
    for moved in drawn(name, 200):
        for shift in range(-5, 6):
            expected = torch.roll(clip(), shift, axis)
            edge = slice(0, shift) if shift > 0 else slice(32 + shift, 32)
            if shift:
                expected.transpose(axis, -1)[..., edge] = 0.0
            if torch.equal(moved, expected):
                seen.add(shift)
    assert seen == set(range(-5, 6))


def test_shear_moves_rows_in_proportion_to_their_height() -> None:
    column = torch.zeros(1, 1, 33, 65)
    column[..., 32] = 1.0
    torch.manual_seed(0)
    slopes = []
    for _ in range(100):
        places = apply_operation(column, "shear_x")[0, 0].argmax(1)
        slopes.append(float(places[-1] - places[0]) / 32)
    assert max(abs(slope) for slope in slopes) <= 0.3 + 1 / 32
    assert min(slopes) < -0.2
    assert max(slopes) > 0.2


def test_cutout_is_a_square_of_at_most_a_ninth() -> None:
    areas = [int((moved[0, 0] == 0).sum()) for moved in drawn("cutout", 200)]
    assert all(round(area**0.5) ** 2 == area for area in areas)
    assert 1 <= min(areas) <= 25
    assert 0.08 * 32**2 < max(areas) <= 11**2


def test_every_operation_is_drawn_and_the_flip_takes_the_whole_clip() -> None:
    torch.manual_seed(0)
    always = ClipTransform(1.0, operation=False, cutout=0)
    assert torch.equal(always(clip()), clip().flip(-1))
    half = ClipTransform(0.5, operation=False, cutout=0)
    flips = sum(torch.equal(half(clip()), clip().flip(-1)) for _ in range(200))
    assert 70 < flips < 130
    drawing = ClipTransform(0.0, operation=True, cutout=0)
    untouched = sum(torch.equal(drawing(clip()), clip()) for _ in range(300))
    assert 30 < untouched < 90  # a sixth, and shifts by 0


def test_a_cut_square_may_stick_out_and_leaves_the_original_alone() -> None:
    torch.manual_seed(0)
    original = clip()
    cut = ClipTransform(0.0, operation=False, cutout=16)
    areas = [int((cut(original)[0, 0] == 0).sum()) for _ in range(100)]
    assert max(areas) == 16**2
    assert min(areas) < 16**2
    assert torch.equal(original, clip())


def test_no_augmentation_is_no_transform() -> None:
    assert make_clip_transform(Augmentation(mixup=0.5)) is None
    for section in ({"horizontal_flip": 0.5}, {"event_augment": "spikformer_dvs"}, {"event_cutout": 16}):
        assert make_clip_transform(Augmentation(**section)) is not None
