"""Which gold answers decoding could have given."""

from unified_rl.core.errors import DataError
from unified_rl.core.sample import DrawnImage, Image, Sample, Task, Text


def check_target(sample: Sample, image_trigger: str) -> None:
    """Refuses a target that decoding could never have produced.

    Args:
        sample: to be learnt from.
        image_trigger: what asks for an image in an interleaved answer.

    Raises:
        DataError: no target, one that is not of the task's form, or an image that its text did
            not ask for.
    """
    if not sample.target:
        raise DataError(f"sample {sample.id!r} has no target to learn from")
    if sample.task != Task.INTERLEAVED:
        draws = sample.task == Task.TEXT_TO_IMAGE
        forms, name = ((Image, DrawnImage), "image") if draws else ((Text,), "text")
        if len(sample.target) > 1 or not isinstance(sample.target[0], forms):
            found = ", ".join(type(segment).__name__.lower() for segment in sample.target)
            raise DataError(
                f"sample {sample.id!r}: the target of a {sample.task.value} sample must be one "
                f"{name}, not {found}"
            )
        return
    for before, segment in zip((None, *sample.target), sample.target, strict=False):
        asked = isinstance(before, Text) and before.text.rstrip().endswith(image_trigger)
        if isinstance(segment, Image | DrawnImage) and not asked:
            raise DataError(
                f"sample {sample.id!r}: an image of an interleaved target must follow a text "
                f"that ends in {image_trigger}"
            )
