#!/usr/bin/env python3
"""NBD servers beside each other in one run: requests per second, and the server's CPU time for each.

  tests/measure/nbd.py SERVER [--seconds N] [--rounds N] [--only PATTERN] [--place free|together|apart]

SERVER is target/release/spindle, whose `serve` is measured, or target/release/examples/nbd_server, which also has
files in the page cache and the modes of a reactor. Needs fio (with the nbd engine), nbdkit and qemu-nbd. Every server
serves 256 MiB at a Unix socket: from memory (Spindle, nbdkit) and from one file each (Spindle, nbdkit, qemu-nbd).
All of it is written once before anything is measured: reading memory that was never written costs page faults in one server
and nothing in another. The servers take turns for each pattern; a figure is the median of the rounds.

Where client and server run decides more at depth 1 than what the server does: to wake a thread on another core that sleeps
takes an interrupt between cores, which is dear in a virtual machine. So each server is measured with the same freedom:
  free      every server and the client may use all cores, and the scheduler places them
  together  every server and the client are bound to core 1
  apart     every server is bound to core 1, the client to core 0
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

SIZE_MIB = 256
PATTERNS = [
    (rw, block, depth) for rw in ("randread", "randwrite") for block in ("4k", "128k") for depth in (1, 32)
]
TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """CPU time of a process, with all threads that it has or had."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


# Cores of the servers, and of the client.
PLACES = {"free": ([], []), "together": (["taskset", "-c", "1"],) * 2, "apart": (["taskset", "-c", "1"], ["taskset", "-c", "0"])}


class Server:
    def __init__(self, name, command, socket, uri):
        self.name, self.socket, self.uri = name, socket, uri
        self.process = subprocess.Popen(command, stdout=open(os.devnull, "w"), stderr=subprocess.DEVNULL)
        for _ in range(200):
            if os.path.exists(socket):
                return
            time.sleep(0.05)
        raise SystemExit(f"{name} does not listen")

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def servers(spindle, folder, place):
    started = []

    def start(name, command, export):
        socket = os.path.join(folder, f"{len(started)}.sock")
        path = os.path.join(folder, f"{len(started)}.img")
        with open(path, "wb") as file:
            file.write(b"\1" * (1 << 20) * SIZE_MIB)
        command = PLACES[place][0] + [part.format(socket=socket, file=path) for part in command]
        started.append(Server(name, command, socket, f"nbd+unix:///{export}?socket={socket}"))

    if os.path.basename(spindle) == "spindle":
        # Free, its one reactor for NBD and its app reactor go where the scheduler puts them.
        cores = ["-m", "0x3"] if place == "free" else ["-m", "0x2"]
        serve = [spindle, "serve", *cores, "-r", "{socket}.rpc", "--nbd", "unix:{socket}"]
        start("Spindle, memory", serve, "disk")
        blocks = {"name": "disk", "num_blocks": SIZE_MIB << 11, "block_size": 512}
        for call in (["bdev_malloc_create", json.dumps(blocks)], ["nbd_export", '{"bdev_name": "disk"}']):
            subprocess.run([spindle, "rpc", "-s", started[0].socket + ".rpc", *call], check=True, stdout=open(os.devnull, "w"))
        start("nbdkit, memory", ["nbdkit", "-f", "-U", "{socket}", "memory", f"{SIZE_MIB}M"], "")
        start("Spindle, direct file", serve + ["--file", "{file}"], "2.img")
        qemu = ["qemu-nbd", "-k", "{socket}", "-f", "raw", "-t", "-e", "16", "-x", ""]
        start("qemu-nbd, direct file", qemu + ["--cache=none", "--aio=io_uring", "{file}"], "")
        return started
    for mode in ("interrupt", "adaptive"):
        start(f"Spindle, memory, {mode}", [spindle, "{socket}", "1", mode, f"disk=malloc:{SIZE_MIB}"], "disk")
    start("nbdkit, memory", ["nbdkit", "-f", "-U", "{socket}", "memory", f"{SIZE_MIB}M"], "")
    start("Spindle, cached file, interrupt", [spindle, "{socket}", "1", "interrupt", "disk=cached:{file}"], "disk")
    start("nbdkit, cached file", ["nbdkit", "-f", "-U", "{socket}", "file", "{file}"], "")
    qemu = ["qemu-nbd", "-k", "{socket}", "-f", "raw", "-t", "-e", "16", "-x", ""]
    start("qemu-nbd, cached file", qemu + ["--cache=writeback", "{file}"], "")
    start("Spindle, direct file, interrupt", [spindle, "{socket}", "1", "interrupt", "disk=file:{file}"], "disk")
    start("qemu-nbd, direct file", qemu + ["--cache=none", "--aio=io_uring", "{file}"], "")
    return started


def fill(server):
    """Writes all of a server's disk once."""
    command = [
        "fio", "--name=x", "--ioengine=nbd", f"--uri={server.uri}", "--rw=write", "--bs=1m", f"--size={SIZE_MIB}m",
    ]
    subprocess.run(command, capture_output=True, check=True)


def measure(server, place, rw, block, depth, seconds):
    before = cpu_seconds(server.process.pid)
    command = PLACES[place][1] + [
        "fio", "--name=x", "--ioengine=nbd", f"--uri={server.uri}", f"--rw={rw}", f"--bs={block}",
        f"--iodepth={depth}", f"--size={SIZE_MIB}m", "--time_based", f"--runtime={seconds}",
        "--output-format=json", "--randrepeat=1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    side = job["read" if "read" in rw else "write"]
    used = cpu_seconds(server.process.pid) - before
    requests = side["total_ios"]
    return side["iops"], used / requests * 1e6, (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] * 1e3 / requests


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("server")
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--place", choices=list(PLACES), default="free")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = servers(options.server, folder, options.place)
        try:
            print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {options.place}\n")
            for server in started:
                fill(server)
            print("| pattern | server | IOPS | server's CPU, us each | client's CPU, us each |")
            print("|---|---|---:|---:|---:|")
            for rw, block, depth in PATTERNS:
                pattern = f"{rw} {block} depth {depth}"
                if not re.search(options.only, pattern):
                    continue
                figures = {server.name: [] for server in started}
                for _ in range(options.rounds):
                    for server in started:
                        figures[server.name].append(measure(server, options.place, rw, block, depth, options.seconds))
                for name, rounds in figures.items():
                    iops, cpu, client = (statistics.median(column) for column in zip(*rounds))
                    print(f"| {pattern} | {name} | {iops:.0f} | {cpu:.1f} | {client:.1f} |")
                    sys.stdout.flush()
            print(f"\nload average {os.getloadavg()[0]:.1f}")
        finally:
            for server in started:
                server.stop()


if __name__ == "__main__":
    main()
