#!/usr/bin/env python3
"""Volumes created by one client in sequence, on a file: how many a second, and what each costs.

  tests/measure/volumes.py SPINDLE FOLDER [COUNT]

SPINDLE is target/release/spindle; its daemon, the store's sparse file (40 GiB) and the socket live in FOLDER, whose file system
decides: each creation writes one page and flushes once, and is acknowledged behind the flush. So the file system's own time for
that, bare and in turns with the creations, is printed beside it.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time

TICK = os.sysconf("SC_CLK_TCK")


class Client:
    def __init__(self, path):
        self.socket, self.calls = socket.socket(socket.AF_UNIX), 0
        self.socket.connect(path)

    def call(self, method, **params):
        self.calls += 1
        request = {"jsonrpc": "2.0", "id": self.calls, "method": method}
        self.socket.sendall(json.dumps({**request, "params": params} if params else request).encode())
        reply = b""
        while True:
            reply += self.socket.recv(65536)
            try:
                answer = json.loads(reply)
            except ValueError:
                continue
            if "error" in answer:
                raise SystemExit(f"{method}: {answer['error']}")
            return answer["result"]


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def main():
    spindle, folder, count = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 10000
    with tempfile.TemporaryDirectory(dir=folder) as folder:
        image, path = os.path.join(folder, "disk.img"), os.path.join(folder, "rpc.sock")
        with open(image, "w") as file:
            file.truncate(40 << 30)
        daemon = subprocess.Popen([spindle, "serve", "-m", "0x1", "-r", path], stdout=subprocess.DEVNULL)
        try:
            while not os.path.exists(path):
                time.sleep(0.01)
            client = Client(path)
            client.call("bdev_aio_create", name="disk", filename=image, block_size=4096)
            client.call("bdev_lvol_create_lvstore", bdev_name="disk", lvs_name="lvs")
            print(f"load average {os.getloadavg()[0]:.1f}")
            bare = os.open(os.path.join(folder, "bare"), os.O_RDWR | os.O_CREAT)
            os.ftruncate(bare, 40 << 30)
            cpu, created, flushed = cpu_seconds(daemon.pid), [], []
            for number in range(count):
                began = time.perf_counter()
                client.call(
                    "bdev_lvol_create", lvs_name="lvs", lvol_name=f"v{number}", size_in_mib=4, thin_provision=True
                )
                created.append(time.perf_counter() - began)
                if number % 4 == 0:
                    began = time.perf_counter()
                    os.pwrite(bare, b"x" * 4096, 4096 * number)
                    os.fdatasync(bare)
                    flushed.append(time.perf_counter() - began)
            cpu, seconds = cpu_seconds(daemon.pid) - cpu, sum(created)
            print(f"{count} volumes in {seconds:.1f} s, {count / seconds:.0f} a second, {cpu / count * 1e6:.0f} us of CPU each")
            for what, times in ("a creation", created), ("a bare write of a page and flush", flushed):
                times.sort()
                at = [times[len(times) // part] * 1e6 for part in (10, 2)]
                print(f"{what}: a tenth within {at[0]:.0f} us, half within {at[1]:.0f} us")
            began = time.monotonic()
            for _ in range(1000):
                client.call("spdk_get_version")
            print(f"a call there and back: {(time.monotonic() - began) * 1e3:.0f} us")
        finally:
            daemon.kill()
            daemon.wait()


if __name__ == "__main__":
    main()
