#!/usr/bin/env python3
"""A good NBD client alone, and beside clients that do what they should not: its p99 in one run.

  tests/measure/hostile.py SPINDLE [--seconds N] [--rounds N] [--only WORD]

SPINDLE is the binary. It serves a memory disk by TCP. The good client comes from 127.0.0.1 and reads 4 KiB at depth 1; the
hostile ones come from 127.0.0.2 and share one process with one thread, so that they take no more of the machine than one core.
Each kind takes turns with the good client alone. The reference is the same client beside a process that burns a core without
a connection: the rest of the difference is what the server could do better.
"""

import argparse
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

SIZE = 64 << 20
GOOD, HOSTILE = "127.0.0.1", "127.0.0.2"


def greeted(port, source=HOSTILE):
    client = socket.create_connection((GOOD, port), source_address=(source, 0))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    rest(client, 18)
    client.sendall(struct.pack(">I", 3))
    return client


def rest(client, count):
    got = b""
    while len(got) < count:
        part = client.recv(count - len(got))
        if not part:
            raise ConnectionError("the server closed")
        got += part
    return got


def served(port, source=HOSTILE):
    client = greeted(port, source)
    client.sendall(b"IHAVEOPT" + struct.pack(">II", 1, 4) + b"disk")
    rest(client, 10)
    return client


def request(command, cookie, offset, length):
    return struct.pack(">IHHQQI", 0x25609513, 0, command, cookie, offset, length)


def percentiles(port, seconds):
    """The good client: microseconds of p50 and p99, and how many reads."""
    client = served(port, GOOD)
    times, cookie, end = [], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        client.sendall(request(0, cookie, cookie * 4096 % SIZE, 4096))
        rest(client, 16 + 4096)
        times.append(time.monotonic() - began)
        cookie += 1
    client.close()
    times.sort()
    return times[len(times) // 2] * 1e6, times[len(times) * 99 // 100] * 1e6, len(times)


# The hostile ones: each is called in a process of its own and never ends.

def burns(port):
    while True:
        pass


def handshakes_never_finished(port):
    clients = []
    while True:
        try:
            clients = clients[-300:] + [greeted(port)]
            clients[-1].sendall(b"IHAVE")
        except OSError:
            pass  # The server has had enough of them.
        time.sleep(0.001)


def readers_that_do_not_read(port):
    clients = []
    for _ in range(50):
        client = served(port)
        client.setblocking(False)
        try:
            while True:
                client.send(request(0, 1, 0, 8 << 20) * 10)
        except BlockingIOError:
            clients.append(client)
    time.sleep(1000)


def floods_of_bad_requests(port):
    clients = [served(port) for _ in range(8)]
    for client in clients:
        client.setblocking(False)
    flood = request(99, 1, 0, 0) * 500
    while True:
        for index, client in enumerate(clients):
            try:
                client.send(flood)
            except BlockingIOError:
                pass
            except OSError:
                clients[index] = served(port)
                clients[index].setblocking(False)
            try:
                while client.recv(1 << 20):
                    pass
            except OSError:
                pass


def opened_and_dropped(port):
    while True:
        socket.create_connection((GOOD, port), source_address=(HOSTILE, 0)).close()


KINDS = [burns, handshakes_never_finished, readers_that_do_not_read, floods_of_bad_requests, opened_and_dropped]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("spindle")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        next(kind for kind in KINDS if kind.__name__ == options.kind)(options.port)
    with tempfile.TemporaryDirectory() as folder:
        rpc = os.path.join(folder, "rpc.sock")
        server = subprocess.Popen([options.spindle, "serve", "-r", rpc], stdout=subprocess.DEVNULL)
        while not os.path.exists(rpc):
            time.sleep(0.05)

        def call(method, **params):
            command = [options.spindle, "rpc", "-s", rpc, method, json.dumps(params)]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

        def ticks():
            with open(f"/proc/{server.pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        try:
            call("bdev_malloc_create", name="disk", num_blocks=SIZE // 512, block_size=512)
            call("nbd_export", bdev_name="disk")
            port = int(call("nbd_listen", address="127.0.0.1:0").rpartition(":")[2])
            percentiles(port, 0.5)
            print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores\n")
            print("| beside | p50, us | p99, us | p99, of alone | server's cores |")
            print("|---|---:|---:|---:|---:|")
            for kind in KINDS:
                if options.only not in kind.__name__:
                    continue
                alone, beside, cores = [], [], []
                for _ in range(options.rounds):
                    alone.append(percentiles(port, options.seconds))
                    command = [sys.executable, __file__, options.spindle, "--kind", kind.__name__, "--port", str(port)]
                    hostile = subprocess.Popen(command, stderr=subprocess.DEVNULL)
                    time.sleep(1)
                    before = ticks()
                    beside.append(percentiles(port, options.seconds))
                    cores.append((ticks() - before) / options.seconds)
                    assert hostile.poll() is None, f"{kind.__name__} ended"
                    hostile.kill()
                    hostile.wait()
                    time.sleep(0.2)
                p50, p99 = (statistics.median(run[at] for run in beside) for at in (0, 1))
                base = statistics.median(run[1] for run in alone)
                ratio = statistics.median(two[1] / one[1] for one, two in zip(alone, beside))
                name = kind.__name__.replace("_", " ")
                print(f"| {name} | {p50:.0f} | {p99:.0f} | {ratio:.2f} (alone {base:.0f}) | {statistics.median(cores):.2f} |")
                sys.stdout.flush()
            print(f"\nload average {os.getloadavg()[0]:.1f}")
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
