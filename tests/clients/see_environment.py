"""Let a virtual environment see the packages of the one that runs this, which it may replace by its own.

.venv/bin/python tests/clients/see_environment.py .venv-clients
"""

import subprocess
import sys
import sysconfig

PURELIB = "import sysconfig; print(sysconfig.get_paths()['purelib'])"

if __name__ == "__main__":
    target = subprocess.check_output([f"{sys.argv[1]}/bin/python", "-c", PURELIB], text=True).strip()
    with open(f"{target}/parent_environment.pth", "w", encoding="utf-8") as file:
        # addsitedir reads the .pth files there, that of the editable installation among them.
        file.write(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n")
