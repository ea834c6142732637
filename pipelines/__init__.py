"""Scripts on top of tfpeft, one a job: python -m pipelines.compress --help"""

import os
import shutil
import subprocess
import sys

from pipelines.common import stopping


def quiet_native_logs():
    """Keeps what TensorFlow's native code logs, other than fatal errors, from the terminal.

    It ignores TF_CPP_MIN_LOG_LEVEL while it is loaded and while it converts, and writes to file
    descriptor 2 whatever Python does with `sys.stderr`. So that descriptor becomes a pipe to
    grep, and Python goes on writing to the terminal itself.
    """
    if shutil.which("grep") is None or sys.stderr is None:
        return
    terminal = os.dup(2)
    noise = r"^([IWE][0-9]{4} |WARNING: All log messages before absl|INFO: Created TensorFlow"
    noise += r"|To enable the following instructions|fully_quantize: )"
    # A session of its own: Ctrl-C is for the script, whose last words must still pass.
    grep = subprocess.Popen(
        ["grep", "--line-buffered", "-vE", noise],
        stdin=subprocess.PIPE,
        stdout=terminal,
        start_new_session=True,
    )
    os.dup2(grep.stdin.fileno(), 2)
    grep.stdin.close()
    sys.stderr = os.fdopen(terminal, "w", buffering=1)


# "-m" is what Python has here while it looks for the module of `python -m pipelines.compress`;
# who imports the package from elsewhere keeps the terminal as it is.
if sys.argv[0] == "-m":
    stopping.install()
    quiet_native_logs()
