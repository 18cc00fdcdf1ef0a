"""Tiny videos whose every frame tells its own number."""

from pathlib import Path

import numpy as np

RATE = 10
"""Frames a second."""


def write_video(
    path: Path,
    count: int = 40,
    codec: str = "mpeg4",
    size: tuple[int, int] = (64, 48),
    gop: int = 12,
    early_index: bool = False,
) -> Path:
    """`count` frames of one grey each: 20 + 5 x number."""
    import av

    settings = {"movflags": "faststart"} if early_index else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", container_options=settings) as container:
        stream = container.add_stream(codec, rate=RATE, options={"sc_threshold": "1000000000"})
        stream.bit_rate = 4_000_000
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = gop
        for number in range(count):
            grey = np.full((size[1], size[0], 3), min(20 + 5 * number, 255), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return path


def number_of(pixels: np.ndarray) -> int:
    """Which frame of `write_video` an image shows."""
    return round((float(pixels.mean()) - 20) / 5)
