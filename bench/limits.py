"""Print the machine's limits: what shares of the limit in the other tables are against.

python bench/limits.py [--threads 2]
"""

from __future__ import annotations

import argparse

from weft.kernels.limits import peak_flops, read_bandwidth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    for n in sorted({1, parser.parse_args().threads}):
        peak, reads = peak_flops(n) / 1e9, read_bandwidth(n) / 1e9
        print(f"{n} thread(s): {peak:.0f} GFLOP/s of float32, {reads:.1f} GB/s read")


if __name__ == "__main__":
    main()
