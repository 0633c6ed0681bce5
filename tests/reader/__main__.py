"""Reads stores: `python3 tests/reader [--esnap UUID=FILE] IMAGE...` prints a line of JSON for each.

Written from docs/format.md alone, to judge by: `accepted` says whether SPDK's loader would take the image.
"""

import json
import mmap
import sys

from image import Refused
from store import Store


def mapped(path):
    """The bytes of a file, read as they are needed."""
    with open(path, "rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            return b""


def main(arguments):
    external, images = {}, []
    while arguments:
        word = arguments.pop(0)
        if word == "--esnap":
            name, path = arguments.pop(0).split("=", 1)
            external[name] = mapped(path)
        else:
            images.append(word)
    for path in images:
        try:
            result = Store(mapped(path), external).describe()
        except Refused as why:
            result = {"accepted": False, "reason": str(why)}
        print(json.dumps({"image": path, **result}))


main(sys.argv[1:])
