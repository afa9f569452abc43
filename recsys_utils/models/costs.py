"""What a model needs before it starts, and whether this machine has it."""

from recsys_utils import LabError
from recsys_utils.memory import GIB, SETTING, available_memory


class TooLarge(LabError):
    """A model that needs more memory than there is: it is left out, the others go on."""


def require_memory(model: str, needed: int, shop: str) -> None:
    """Raise TooLarge, with the cure, where a model needs more bytes than there are."""
    available = available_memory()
    if needed > available:
        raise TooLarge(
            f"{model} is left out: it needs about {needed / GIB:.1f} GiB for {shop}, and"
            f" {available / GIB:.1f} GiB are free; a smaller catalogue or more memory"
            f" ({SETTING}) brings it back"
        )
