"""Ctrl-C and SIGTERM: one line, and the folder of the run as after a kill."""

import contextlib
import os
import signal
import sys
import threading

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_SECONDS = 10.0  # in which a run that was stopped has to end


class Stopped(BaseException):
    """A signal asked this process to end.

    Attributes:
        status: The exit status, 128 and the number of the signal.
    """

    def __init__(self, number):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


class _Handler:
    """What a signal leads to.

    Inside `stoppable` the first one raises `Stopped`, so that temporary files are removed and the
    folder is given back. Anything else ends the process: a second signal, a signal during the
    imports, and code that keeps `Stopped` to itself. Then locks alone are removed.
    """

    def __init__(self):
        self.process = os.getpid()
        self.raises = False

    def __call__(self, number, frame):
        if os.getpid() != self.process:  # a worker, whose parent prints the line
            os._exit(128 + number)
        if not self.raises:
            self.exit(number)
        self.raises = False
        timer = threading.Timer(_SECONDS, self.exit, (number,))
        timer.daemon = True
        timer.start()
        raise Stopped(number)

    def exit(self, number):
        """Ends the process without another line of Python."""
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        with contextlib.suppress(Exception):
            if "tfpeft.core.locks" in sys.modules:  # it takes long to import
                sys.modules["tfpeft.core.locks"].release_all()
        with contextlib.suppress(Exception):
            print(line(number), file=sys.stderr, flush=True)
        os._exit(128 + number)


def line(number):
    """Returns what is printed when a signal ends a script."""
    return (
        f"stopped by {signal.Signals(number).name}: "
        "the same command goes on after the last stage that is finished"
    )


def install():
    """Sets the handler of the signals that this process does not ignore, as `nohup` asks it to."""
    handler = _Handler()
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


@contextlib.contextmanager
def stoppable():
    """Makes the first signal raise `Stopped` in the body, if `install` was called."""
    handler = signal.getsignal(signal.SIGINT)
    if not isinstance(handler, _Handler):
        handler = signal.getsignal(signal.SIGTERM)
    if not isinstance(handler, _Handler):
        yield
        return
    ignored, sys.unraisablehook = sys.unraisablehook, _unraisable(handler, sys.unraisablehook)
    handler.raises = True
    try:
        yield
    finally:
        handler.raises = False
        sys.unraisablehook = ignored


def _unraisable(handler, default):
    """Returns a hook that ends the process where `Stopped` came in code that cannot raise."""

    def hook(unraisable):
        if isinstance(unraisable.exc_value, Stopped):
            handler.exit(unraisable.exc_value.status - 128)
        default(unraisable)

    return hook
