"""The processes in which notebooks run."""

import subprocess

from jupyter_client import AsyncKernelManager


class QuietKernel(AsyncKernelManager):
    """A kernel whose own stderr is closed.

    What a cell prints comes as messages; all else is noise of kernels that are being stopped.
    """

    async def start_kernel(self, **options: object) -> None:
        """Start it."""
        await super().start_kernel(stderr=subprocess.DEVNULL, **options)
