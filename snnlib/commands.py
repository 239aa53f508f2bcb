"""What every command line of the package does alike: one line for what does not fit, a quiet end when nobody reads."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from snnlib.errors import InputError


class OneLineParser(argparse.ArgumentParser):
    """Argument parser whose errors are a single line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see --help")


def exit_code(command: Callable[[], int], interrupted: str = "interrupted") -> int:
    """Run `command`: its own exit code, 2 for input that does not fit, 130 with `interrupted` after Ctrl-C.

    What a terminal cannot show (ASCII) is escaped.
    Where the reader of the output has gone away (`... --list | head`) the command ends quietly with 141, as a program
    that the signal SIGPIPE ends.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = command()
        sys.stdout.flush()
        return code
    except InputError as error:
        print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains while it flushes at exit
        return 141
