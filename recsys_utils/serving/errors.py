"""What is refused and why; the routes answer 503, 404 and 401, and 422 for any other LabError."""

from .. import LabError


class Unavailable(LabError):
    """Nothing can be answered now."""


class NotFound(LabError):
    """What was asked for is not there."""


class Forbidden(LabError):
    """The key is missing or wrong."""
