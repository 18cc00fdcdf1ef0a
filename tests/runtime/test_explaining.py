"""What cannot be written is one line with a code of its own."""

import errno

import pytest

from unified_rl.runtime.explaining import explain


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_anywhere_is_told_in_a_line(number):
    line, code = explain(OSError(number, "No space left on device", "/data/out/x.json"))
    assert code == 4
    assert "/data/out/x.json" in line and "free some space" in line and "\n" not in line


def test_another_error_of_a_file_is_a_fault():
    assert explain(OSError(errno.EIO, "Input/output error")) == (None, 1)


def test_a_torchvision_of_another_torch_is_told_in_a_line_wherever_it_fails():
    # as transformers raises it: its own error, from what torchvision said when it was imported
    error = ModuleNotFoundError("Could not import module 'JanusVQVAE'")
    error.__cause__ = RuntimeError("operator torchvision::nms does not exist")
    line, code = explain(error)
    assert code == 2
    assert "torchvision" in line and "pip uninstall torchvision" in line and "\n" not in line
