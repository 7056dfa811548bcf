"""The command line answers at once."""

import subprocess
import sys


def test_importing_the_rooms_loads_no_framework():
    code = "import sys, configs, pipeline, serving; sys.exit('tensorflow' in sys.modules or 'tfx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
