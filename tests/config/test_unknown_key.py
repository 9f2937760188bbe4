"""A key that nothing reads: the message names the key that was probably meant, in whichever part it is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from fastfcn_pl.config.unknown_key import no_such_key
from tests.conftest import composed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("data.crop_size=3", "did you mean data.augmentation.crop_size?"),
        ("data.crop_sise=3", "did you mean data.augmentation.crop_size?"),
        ("+data.crop_size=3", "did you mean data.augmentation.crop_size?"),
        ("lr=1", "did you mean optimizer.lr?"),
        ("model.crop_size=3", "did you mean data.augmentation.crop_size?"),
        ("model.neck.widht=3", "did you mean width?"),
        ("neck=fpn", "did you mean model/neck=...?"),
        ("max_epoch=3", "did you mean trainer.max_epochs?"),
        ("sead=3", "did you mean seed?"),
    ],
)
def test_it_is_found_in_other_parts(
    argument: str, hint: str, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = command("train", "data=camvid", "model.backbone.pretrained=false", argument)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {argument.lstrip('+').partition('=')[0]}: ")
    assert done.stderr.endswith(f"; {hint}\n")


def test_a_name_of_several_parts_names_those_inside_first() -> None:
    cfg = composed("data=camvid")
    assert no_such_key("level", map(str, cfg), cfg).endswith("did you mean model.head.level or model.aux_head.level?")
    assert no_such_key("model.head.x.level", [], cfg).endswith("did you mean model.head.level or model.aux_head.level?")
    assert no_such_key("model.weight", ["a"], cfg).count("loss.terms.") == 3
    assert no_such_key("zzz", ["a", "b"], cfg) == "zzz: no such key; choose from a, b"
    assert no_such_key("zzz", ["a", "b"]) == "zzz: no such key; choose from a, b"
