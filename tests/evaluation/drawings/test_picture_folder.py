"""Pictures as files: what tells policies apart, and damage."""

import pytest
import torch

from tests.evaluation.drawers import Drawer
from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import DataError
from unified_rl.evaluation.drawings.picture_folder import PictureFolder, Wanted, fingerprint

WANTED = [Wanted(f"{i}.png", f"p{i}") for i in range(5)]


def folder(tmp_path, batch_size=2):
    return PictureFolder(str(tmp_path / "p"), Behaviour(), batch_size, seed=0)


def test_each_picture_differs_and_none_depends_on_the_others_being_there(tmp_path):
    pictures = folder(tmp_path)
    pictures.draw(Drawer(), WANTED)
    content = [pictures.read(item.name).tobytes() for item in WANTED]
    assert len(set(content)) == 5
    (tmp_path / "p" / "3.png").unlink()
    (tmp_path / "p" / "4.png").unlink()
    folder(tmp_path).draw(Drawer(), WANTED)
    assert [pictures.read(item.name).tobytes() for item in WANTED] == content


def test_progress_is_told(tmp_path):
    told = []
    folder(tmp_path).draw(Drawer(), WANTED, lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_the_policy_keeps_its_mode(tmp_path):
    drawer = Drawer().train()
    folder(tmp_path).draw(drawer, WANTED)
    assert drawer.training


def test_a_damaged_picture_is_named(tmp_path):
    pictures = folder(tmp_path)
    pictures.draw(Drawer(), WANTED)
    (tmp_path / "p" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1\.png is unreadable.*remove it"):
        pictures.read("1.png")


def test_a_damaged_protocol_is_named(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "protocol.json").write_text("[]")
    with pytest.raises(DataError, match="cannot be read; remove"):
        folder(tmp_path).draw(Drawer(), WANTED)


def test_fingerprints_tell_weights_and_shapes_apart():
    def module(*numbers):
        layer = torch.nn.Linear(len(numbers), 1, bias=False)
        layer.weight.data = torch.tensor([numbers])
        return layer

    assert fingerprint(module(1.0, 2.0)) == fingerprint(module(1.0, 2.0))
    assert fingerprint(module(1.0, 2.0)) != fingerprint(module(1.0, 2.5))
    assert fingerprint(module(1.0, 2.0)) != fingerprint(module(1.0, 2.0, 0.0))
    assert fingerprint(object()) == ""
