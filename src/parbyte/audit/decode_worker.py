"""The decoding half of a proof: an interpreter of its own, given an artifact and a bitstream.

Arguments: artifact, bitstream, output file, "quiet" or "loud". One JSON object on stdout.
"""

import json
import sys
from pathlib import Path

from parbyte.base.clock import Stopwatch
from parbyte.base.errors import ParbyteError
from parbyte.base.log import console_for
from parbyte.codec.compress import decompress_file


def main(arguments: list[str]) -> int:
    """Decode, and say how long it took or what was wrong."""
    artifact, bitstream, out, voice = arguments
    watch = Stopwatch()
    try:
        console = console_for(quiet=voice == "quiet")
        decompress_file(Path(artifact), Path(bitstream), Path(out), console)
    except ParbyteError as error:
        sys.stdout.write(json.dumps({"error": str(error)}))
        return error.exit_code
    sys.stdout.write(json.dumps({"decode_seconds": watch.elapsed_s()}))
    return 0
