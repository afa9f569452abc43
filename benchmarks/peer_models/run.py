"""One model of one peer, in the peer's own environment: `python run.py JOB.json`.

Reads the shop, makes a file of lists for each setting, and tells the
processor's seconds (fit and lists together), the peak memory of this process and the version.
"""

import importlib
import importlib.metadata
import json
import re
import sys
import time
import warnings
from pathlib import Path

from shop import Shop


def main(job_file: Path) -> None:
    """Do the job; its folder then holds 0.csv, 1.csv, … and answer.json."""
    warnings.filterwarnings("ignore")
    job = json.loads(job_file.read_text())
    model = getattr(importlib.import_module(f"with_{job['peer']}"), job["model"])
    shop = Shop.read(Path(job["shop"]))
    seconds = []
    for number, setting in enumerate(job["settings"]):
        start = time.process_time()
        lists = model(shop, job["k"], **setting)
        seconds.append(round(time.process_time() - start, 2))
        lists.to_csv(job_file.parent / f"{number}.csv", index=False)
        print(f"{job['model']} {setting}: {seconds[-1]} s", flush=True)
    version = importlib.metadata.version(job["package"])
    answer = {"seconds": seconds, "peak_mib": peak_mib(), "version": version}
    (job_file.parent / "answer.json").write_text(json.dumps(answer))


def peak_mib() -> int:
    """Of this process since its program began, without what its parent had."""
    kib = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kib[1]) // 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
