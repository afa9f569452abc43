"""The processes in which notebooks run."""

import os
import subprocess

from jupyter_client import AsyncKernelManager

from recsys_utils.data.runs import NOTEBOOK


def kernel_of(notebook: str) -> type[AsyncKernelManager]:
    """A kernel that knows the name of its notebook, and whose own stderr is closed.

    What a cell prints comes as messages; all else is noise of kernels that are being stopped.
    """

    class QuietKernel(AsyncKernelManager):
        async def start_kernel(self, **options: object) -> None:
            environment = {**options.pop("env", os.environ), NOTEBOOK: notebook}
            await super().start_kernel(stderr=subprocess.DEVNULL, env=environment, **options)

    return QuietKernel
