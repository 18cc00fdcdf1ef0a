"""OpenStory++: keyframes of videos with captions; those that follow one another are a story.

Parquet rows with a key "<video, 11 characters>_keyframe_<h>-<m>-<s>-<ms>", which may have more
behind it, and a caption. The pictures are frames that the data set's own script takes out of the
videos, or a column.
"""

import json
import re
from array import array
from pathlib import Path
from typing import Any, Literal, NamedTuple

from unified_rl.core.errors import ConfigError, DataError, nearest
from unified_rl.core.sample import Image, Sample, Task
from unified_rl.data.adapter import DatasetAdapter
from unified_rl.data.cells import image_of
from unified_rl.data.images import ImageError, fit
from unified_rl.data.jsonl import BrokenRowError
from unified_rl.data.parquet_rows import ParquetRows
from unified_rl.data.telling import Instruction, sentence_of, telling

KEY_LENGTH = 200
"""Characters; a longer key is none."""
REPEATED_FRAMES = 8
"""Rows in a row that may tell of one frame; of which the first is read."""

_KEY = re.compile(r"(([\w-]{11})_keyframe_(\d{1,3})-(\d{1,2})-(\d{1,2})-(\d{1,3}))\D.*|\1", re.ASCII)
