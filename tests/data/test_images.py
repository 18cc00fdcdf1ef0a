"""Images of any mode and size become square RGB; what cannot be read is named."""

import json

import numpy as np
import pytest
from PIL import Image as PillowImage
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

from unified_rl.core.errors import ConfigError
from unified_rl.data import images
from unified_rl.data.images import ImageError, check_header, fit, path_inside, read_image
from unified_rl.data.jsonl import JsonlSource

BICUBIC = PillowImage.Resampling.BICUBIC
RULES = ("crop", "pad", "stretch")


def noise(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PillowImage.fromarray(pixels)


@pytest.mark.parametrize("how", RULES)
def test_image_of_the_right_size_is_left_alone(how):
    np.testing.assert_array_equal(fit(noise(24, 24), 24, how), np.array(noise(24, 24)))


def test_crop_is_scaling_then_cutting():
    # 30 -> 24, so 50 -> 24 * 50 // 30 = 40, of which (40 - 24) / 2 = 8 go at each end
    expected = noise(30, 50).resize((40, 24), BICUBIC).crop((8, 0, 32, 24))
    np.testing.assert_array_equal(fit(noise(30, 50), 24, "crop"), np.array(expected))
    upright = noise(50, 30).resize((24, 40), BICUBIC).crop((0, 8, 24, 32))
    np.testing.assert_array_equal(fit(noise(50, 30), 24, "crop"), np.array(upright))


def test_crop_of_an_odd_remainder():
    # 45 -> 16 * 45 // 20 = 36; (36 - 16) / 2 = 10; and 47 -> 37: 10.5, of which Python makes 10
    for width, scaled in ((45, 36), (47, 37)):
        expected = noise(20, width).resize((scaled, 16), BICUBIC).crop((10, 0, 26, 16))
        np.testing.assert_array_equal(fit(noise(20, width), 16, "crop"), np.array(expected))


def test_ends_of_a_strip_do_not_reach_the_crop():
    # 200 : 1, so all but the middle 64 go before scaling: white, and black where the crop looks
    pixels = np.full((1, 200, 3), 255, np.uint8)
    pixels[:, 90:110] = 0
    assert (fit(PillowImage.fromarray(pixels), 24, "crop") == 0).all()


def test_pad_fills_with_grey():
    found = fit(PillowImage.new("RGB", (40, 20), (200, 0, 9)), 32, "pad")
    # 40 -> 32, 20 -> 16; (32 - 16) / 2 = 8 rows of grey above and below
    assert (found[:8] == 127).all() and (found[24:] == 127).all()
    assert (found[8:24] == (200, 0, 9)).all()


def test_pad_keeps_fourteen_pixels():
    # 10 / 1000 * 384 = 3.84, under 14: rows (384 - 14) / 2 = 185 to 199
    found = fit(PillowImage.new("RGB", (1000, 10)), 384, "pad")
    assert (found[185:199] == 0).all()
    assert (found[:185] == 127).all() and (found[199:] == 127).all()


@pytest.mark.parametrize("size", [(600, 400), (300, 400), (500, 10)])
def test_pad_is_that_of_janus(size):
    width, height = size
    official = JanusImageProcessorPil(
        image_mean=[0.5] * 3, image_std=[0.5] * 3, do_rescale=False, do_normalize=False
    )
    expected = official(noise(height, width), return_tensors="np")["pixel_values"][0]
    found = fit(noise(height, width), 384, "pad").transpose(2, 0, 1)
    np.testing.assert_array_equal(found, expected)


def test_stretch_gives_the_proportions_up():
    expected = noise(30, 50).resize((24, 24), BICUBIC)
    np.testing.assert_array_equal(fit(noise(30, 50), 24, "stretch"), np.array(expected))


@pytest.mark.parametrize("how", RULES)
@pytest.mark.parametrize("size", [(1, 3_000_000), (3_000_000, 1)])
def test_a_strip_does_not_become_a_huge_square(how, size):
    # scaled to a shorter side of 24 it would be 72 million pixels long, squared 9e12
    assert fit(PillowImage.new("RGB", size, "red"), 24, how).shape == (24, 24, 3)


def test_unknown_rule():
    with pytest.raises(ConfigError, match="image_fit='cropp' is not a rule; did you mean 'crop'"):
        fit(noise(4, 4), 4, "cropp")
    with pytest.raises(ConfigError, match="did you mean 'pad'"):
        JsonlSource("nowhere.jsonl", image_fit="padd")


def paletted():
    image = PillowImage.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    return image


def clear_paletted():
    image = paletted()
    image.info["transparency"] = 1
    return image


MODES = {
    "bits": (lambda: PillowImage.new("1", (4, 4), 1), (255, 255, 255)),
    "grey": (lambda: PillowImage.new("L", (4, 4), 7), (7, 7, 7)),
    # 255 * (1 - 128 / 255) = 127 of white shines through
    "grey_half_clear": (lambda: PillowImage.new("LA", (4, 4), (0, 128)), (127, 127, 127)),
    "red_half_clear": (lambda: PillowImage.new("RGBA", (4, 4), (255, 0, 0, 128)), (255, 127, 127)),
    "palette": (paletted, (10, 20, 30)),
    "clear_palette": (clear_paletted, (255, 255, 255)),
    "inks": (lambda: PillowImage.new("CMYK", (4, 4), (255, 0, 0, 0)), (0, 255, 255)),
    # 0x1234 >> 8 = 0x12 = 18
    "deep": (lambda: PillowImage.fromarray(np.full((4, 4), 0x1234, np.uint16)), (18, 18, 18)),
}


@pytest.mark.parametrize("name", MODES)
def test_modes_become_rgb(tmp_path, name):
    make, colour = MODES[name]
    assert (fit(make(), 4) == colour).all()
    path = tmp_path / ("image.jpg" if name == "inks" else "image.png")
    make().save(path, **({"quality": 100} if name == "inks" else {}))
    found = np.array(read_image(path)).astype(int)
    assert np.abs(found - colour).max() <= (2 if name == "inks" else 0)


def test_photographs_are_turned_as_exif_says(tmp_path):
    image = PillowImage.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned clockwise: what is left comes to the top
    image.save(tmp_path / "image.png", exif=exif)
    turned = np.array(read_image(tmp_path / "image.png"))
    assert turned.tolist() == [[[255, 0, 0]], [[0, 0, 255]]]


def test_mode_without_a_range_is_refused():
    with pytest.raises(ImageError, match=r"of mode F .*; save it with 8 bits a channel"):
        fit(PillowImage.new("F", (4, 4)), 4)


def broken(folder, name):
    path = folder / "image.png"
    if name == "folder":
        path.mkdir()
    elif name == "text":
        path.write_text("no image")
    elif name == "empty":
        path.touch()
    elif name == "gif":
        noise(4, 4).save(path, format="GIF")
    elif name == "huge":
        PillowImage.new("1", (8001, 8000)).save(path)
    elif name == "bomb":  # over 2 * 89 Mpx Pillow refuses by itself
        PillowImage.new("1", (13500, 13500)).save(path)
    elif name == "truncated":
        noise(40, 40).save(path)
        path.write_bytes(path.read_bytes()[:-300])
    return path


BROKEN = {
    "missing": "does not exist",
    "folder": "is a folder or device",
    "text": "is unreadable; save it as PNG, JPEG or WebP",
    "empty": "is unreadable; save it as PNG, JPEG or WebP",
    "gif": "is unreadable; save it as PNG, JPEG or WebP",
    "huge": "of 8001 x 8000 is over 64000000 pixels; scale it down",
    "bomb": "is over 64000000 pixels; scale it down",
    "truncated": "is truncated or damaged: ",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_told(tmp_path, name):
    with pytest.raises(ImageError) as caught:
        read_image(broken(tmp_path, name))
    assert str(caught.value).startswith(BROKEN[name])


def test_large_file_is_refused_unopened(tmp_path, monkeypatch):
    noise(40, 40).save(tmp_path / "image.png")
    monkeypatch.setattr(images, "IMAGE_BYTES", 100)
    with pytest.raises(ImageError, match="is over 100 bytes"):
        check_header(tmp_path / "image.png")


def test_header_tells_the_mode(tmp_path):
    PillowImage.new("LA", (4, 4)).save(tmp_path / "image.png")
    assert check_header(tmp_path / "image.png") == "LA"


@pytest.mark.parametrize("name", ["/etc/hostname", "../x.png", "a/../../x.png", "C:\\x.png"])
def test_names_do_not_lead_out_of_their_folder(tmp_path, name):
    with pytest.raises(ImageError, match="is not a path inside image_root"):
        path_inside(tmp_path, name)


def test_jsonl_rows_are_squeezed_as_told(tmp_path):
    noise(30, 50).save(tmp_path / "image.png")
    row = {"id": "a", "task": "text", "prompt": [{"image": "image.png"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    for how in RULES:
        source = JsonlSource(str(tmp_path / "rows.jsonl"), image_size=24, image_fit=how)
        found = source.sample(0).prompt[0].pixels
        np.testing.assert_array_equal(found, fit(noise(30, 50), 24, how))
