"""The processes in which notebooks run."""

import subprocess

from jupyter_client import AsyncKernelManager


class Quiet(AsyncKernelManager):
    """A kernel whose own stderr is closed: cells' output comes as messages, and what is left is noise of kernels that are being stopped."""

    async def start_kernel(self, **options: object) -> None:
        """Start it."""
        await super().start_kernel(stderr=subprocess.DEVNULL, **options)
