"""The small shop that the service's tests train, for the tour of the service too."""

from test_serving_shop import base

__all__ = ["base"]
