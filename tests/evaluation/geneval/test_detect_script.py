"""The script of docs/benchmarks.md, run over pictures with a detector in mmdet's place."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unified_rl.evaluation.geneval.detection_files import DetectionFiles
from unified_rl.evaluation.geneval.metadata import CLASSES

DOCS = Path(__file__).parents[3] / "docs" / "benchmarks.md"
MMDET = '''
import numpy as np

def init_detector(config, weights, device):
    assert (config, weights, device) == ("c.py", "w.pth", "cuda")
    return "model"

def inference_detector(model, path):
    """80 classes; a dog on the left half and two cats, as mmdet 2.x returns them."""
    boxes = [np.zeros((0, 5), np.float32) for _ in range(80)]
    masks = [[] for _ in range(80)]
    half = np.zeros((6, 5), bool)
    half[:, :2] = True
    boxes[16], masks[16] = np.array([[0, 0, 2, 6, 0.75]], np.float32), [half]
    boxes[15], masks[15] = np.array([[1, 1, 2, 2, 0.5]] * 2, np.float32), [half, ~half]
    return boxes, masks
'''


def test_what_the_script_writes_is_read(tmp_path):
    (script,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (tmp_path / "detect.py").write_text(script)
    (tmp_path / "mmdet").mkdir()
    (tmp_path / "mmdet" / "__init__.py").touch()
    (tmp_path / "mmdet" / "apis.py").write_text(MMDET)
    pictures = tmp_path / "pictures" / "00002" / "samples"
    pictures.mkdir(parents=True)
    pixels = np.zeros((6, 5, 3), np.uint8)
    Image.fromarray(pixels).save(pictures / "00001.png")
    arguments = ["detect.py", "pictures", "detections", "c.py", "w.pth"]
    subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True, timeout=60)
    detector = DetectionFiles(str(tmp_path / "detections"), "mmdet", official=True)
    found = detector.detect("00002/samples/00001.png", pixels)
    assert set(found) == {CLASSES[16], CLASSES[15]} == {"dog", "cat"}
    (dog,) = found["dog"]
    assert dog.box.tolist() == [0, 0, 2, 6]
    assert dog.score == pytest.approx(0.75)
    assert dog.mask[:, :2].all()
    assert not dog.mask[:, 2:].any()
    assert len(found["cat"]) == 2
    assert found["cat"][1].mask[:, 2:].all()
