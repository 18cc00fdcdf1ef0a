"""Our policies as a model of VLMEvalKit, which needs an environment of its own.

VLMEvalKit and Hydra want different versions of omegaconf, so this file is imported there and asks
`unified_rl.answer_messages` in our environment, a process that it starts. It needs nothing of
ours but itself: copy it, or put the repository on PYTHONPATH. In VLMEvalKit's `vlmeval/config.py`:

    from unified_rl.plugins.vlmeval import UnifiedModel
    supported_VLM["unified_rl"] = partial(
        UnifiedModel, python="/path/to/unified-rl/.venv/bin/python", root="/path/to/unified-rl",
        settings=["model=janus_pro_1b", "checkpoint=FOLDER"])
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence

try:
    from vlmeval.vlm.base import BaseModel
except ImportError:  # outside of VLMEvalKit, as in our own tests
    BaseModel = object

FAILED = "Failed to obtain answer"
"""What VLMEvalKit counts as a failure, and asks again in the next run."""
TOKEN_LIMIT = 2048
"""Tokens of an answer, as VLMEvalKit's own Janus has it."""


class UnifiedModel(BaseModel):
    """Passes each message on and gives the answer back; prompts are VLMEvalKit's own.

    Args:
        python: the interpreter of our environment.
        root: folder of our repository.
        settings: as `unified_rl.answer_messages` takes them.
        token_limit: most tokens of an answer.
    """

    INTERLEAVE = True

    def __init__(
        self,
        python: str,
        root: str,
        settings: Sequence[str] = (),
        token_limit: int = TOKEN_LIMIT,
    ) -> None:
        super().__init__()
        self._token_limit = token_limit
        self._process = subprocess.Popen(
            [python, "-m", "unified_rl.answer_messages", *settings],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def generate_inner(
        self, message: Sequence[Mapping[str, str]], dataset: str | None = None
    ) -> str:
        """The answer to one message; `FAILED` where it could not be asked, as the log then says.

        Raises:
            RuntimeError: the process has ended.
        """
        asked = {
            "message": [{"type": part["type"], "value": part["value"]} for part in message],
            "token_limit": self._token_limit,
        }
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise RuntimeError("unified_rl.answer_messages has ended; see above") from error
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("unified_rl.answer_messages has ended; see above")
        reply = json.loads(line)
        if "error" in reply:
            print(f"unified_rl: {reply['error']}", file=sys.stderr)
            return FAILED
        return reply["answer"]

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()
