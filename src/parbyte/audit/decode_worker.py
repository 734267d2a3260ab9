"""The decoding half of a proof: an interpreter of its own, given an artifact and a bitstream.

Arguments: artifact, bitstream, output file, "quiet" or "loud". One JSON object on stdout.
"""

import json
import sys
from pathlib import Path

from parbyte.audit.proof import first_bytes
from parbyte.base.clock import Stopwatch
from parbyte.base.errors import ParbyteError
from parbyte.base.log import console_for
from parbyte.codec.compress import decompress_file
from parbyte.codec.record import MAGIC as ARCHIVE_MAGIC
from parbyte.codec.restore import restore


def main(arguments: list[str]) -> int:
    """Decode, and say how long it took or what was wrong."""
    *files, voice = arguments
    artifact, bitstream, out = map(Path, files)
    watch = Stopwatch()
    try:
        console = console_for(quiet=voice == "quiet")
        is_archive = bitstream.is_file() and first_bytes(bitstream).startswith(ARCHIVE_MAGIC)
        (restore if is_archive else decompress_file)(artifact, bitstream, out, console)
    except ParbyteError as error:
        sys.stdout.write(json.dumps({"error": str(error)}))
        return error.exit_code
    sys.stdout.write(json.dumps({"decode_seconds": watch.elapsed_s()}))
    return 0
