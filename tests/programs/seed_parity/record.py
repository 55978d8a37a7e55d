"""Record the loss curves of gpt.py and cnn.py under torch: `python record.py`, with torch.

Writes curves.json: script -> seed -> losses; under "SCRIPT, plain" the same with torch's one-thread
code without oneDNN, which shows how far torch itself goes when only the order of its sums changes.
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS, SEEDS = ("gpt", "cnn"), range(5)
PLAIN = "import torch; torch.backends.mkldnn.enabled = False; torch.set_num_threads(1)\n"


def losses(text: str) -> list[float]:
    """The numbers of the lines `step N loss X`."""
    return [float(line.split()[3]) for line in text.splitlines() if line.startswith("step ")]


def curve(command: list[str]) -> list[float]:
    return losses(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    curves: dict[str, dict[str, list[float]]] = {}
    for script in SCRIPTS:
        path = HERE / f"{script}.py"
        plain = ["-c", PLAIN + path.read_text("utf-8")]
        for name, start in ((script, [str(path)]), (f"{script}, plain", plain)):
            made = {str(s): curve([sys.executable, *start, str(s)]) for s in SEEDS}
            curves[name] = made
    (HERE / "curves.json").write_text(json.dumps(curves, indent=0) + "\n", "utf-8")


if __name__ == "__main__":
    main()
