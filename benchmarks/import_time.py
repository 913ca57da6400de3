"""What `import dots_zoo` costs over `import timm`: fresh interpreters, interleaved, medians.

python benchmarks/import_time.py [repetitions]
"""

import platform
import statistics
import subprocess
import sys
import time


def seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main(repetitions: int) -> None:
    timm, ours = [], []
    for _ in range(repetitions):
        timm.append(seconds("import timm"))
        ours.append(seconds("import timm, dots_zoo"))
    extra = statistics.median(ours) - statistics.median(timm)
    print(
        f"import timm {statistics.median(timm):.2f} s, with dots_zoo {statistics.median(ours):.2f} s: "
        f"{extra:.2f} s more; medians of {repetitions}, python {platform.python_version()}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
