#!/usr/bin/env python3
"""Bdevs beside the bare copy, fio and a peer in one run.

  tests/measure/bdev.py SPINDLE [--seconds N] [--rounds N] [--only PATTERN] [--folder PATH] [--peer BDEVPERF]

SPINDLE is target/release/spindle. Three tables:
  memory  `perf bdev`: null, malloc and passthru through an open descriptor that counts, two cores beside one
  peer    the same loads by `perf bdev --on` and by the peer's bdevperf (for example that of SPDK), if one is given: both on
          core 1, requests per second of CPU time
  files   `perf bdev --on FILE --interrupt-mode` beside fio's io_uring engine on the same file with the same settings, past the
          page cache, in FOLDER (default: the temporary folder) and in /dev/shm; requests per second and CPU time for each,
          Spindle's divided by fio's

They run one after the other on core 1, in turns; a figure is the median of the rounds. CPU time is that of all threads of a
process, those that the kernel adds for io_uring too; what fio takes to start and end is measured once and left out,
and what the peer takes beyond the time of the run.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile

SIZE_MIB = 256
CORE = "1"
PINNED = ["taskset", "-c", CORE]


def run(command, **options):
    """Output, and CPU seconds of the process and all that it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}{done.stdout[-2000:]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, used


def spindle_load(spindle, on, workload, depth, seconds, *more):
    """IOPS and microseconds of CPU time for each request."""
    command = [spindle, "perf", "bdev", "--on", on, "--overwrite", "-w", workload, "-q", str(depth), *more]
    output, _ = run(command + ["-t", str(seconds), "-m", f"[{CORE}]", "--json"])
    result = json.loads(output)
    requests = sum(job["iops"] * job["runtime"] for job in result["results"])
    return sum(job["iops"] for job in result["results"]), result["cpu_s"] / requests * 1e6


def fio(path, workload, depth, *length):
    command = PINNED + [
        "fio", "--name=x", "--ioengine=io_uring", "--direct=1", f"--filename={path}", f"--rw={workload}", "--bs=4k",
        f"--iodepth={depth}", f"--size={SIZE_MIB}m", "--randrepeat=1", "--norandommap=1", "--output-format=json",
        "--allow_file_create=0", *length,
    ]
    output, used = run(command)
    job = json.loads(output[output.index("{"):])["jobs"][0]
    return job["read" if "read" in workload else "write"], used


# CPU seconds of fio's start and end.
FIO_ITSELF = []


def fio_load(path, workload, depth, seconds):
    if not FIO_ITSELF:
        FIO_ITSELF.append(min(fio(path, "randread", 1, "--number_ios=1")[1] for _ in range(3)))
    side, used = fio(path, workload, depth, "--time_based", f"--runtime={seconds}")
    return side["iops"], (used - FIO_ITSELF[0]) / side["total_ios"] * 1e6


def peer_load(peer, config, workload, depth, seconds):
    """A poller that never sleeps: it uses what the core gives it, no more than the time of the run."""
    command = [peer, "--disable-cpumask-locks", "--no-huge", "-s", "512", "-m", f"[{CORE}]", "-c", config]
    output, used = run(command + ["-q", str(depth), "-o", "4096", "-w", workload, "-t", str(seconds)])
    rows = re.findall(r"^\s*Total\s*:\s*([0-9.]+)", output, re.M)
    if not rows:
        raise SystemExit(f"{peer} printed no total:\n{output[-2000:]}")
    iops = float(rows[-1])
    return iops, min(used, seconds) / (iops * seconds) * 1e6


def medians(rounds):
    return [statistics.median(column) for column in zip(*rounds)]


def memory(spindle):
    output, _ = run([spindle, "perf", "bdev", "--json"])
    print("| what | ns | p99 | yardsticks |")
    print("|---|---:|---:|---:|")
    for figure in json.loads(output):
        ratio = figure["ns_median"] / figure["yardstick_ns"] if figure.get("yardstick_ns") else None
        share = f"{ratio:.2f}" if ratio else ""
        print(f"| {figure['what']} | {figure['ns_median']:.1f} | {figure['ns_p99']:.1f} | {share} |")


def peer_config(folder, kind):
    methods = {
        "null": ("bdev_null_create", {"name": "null0", "num_blocks": 131072, "block_size": 512}),
        "malloc": ("bdev_malloc_create", {"name": "malloc0", "num_blocks": 131072, "block_size": 512}),
    }
    method, params = methods[kind]
    path = os.path.join(folder, f"{kind}.json")
    config = [{"method": method, "params": params}]
    with open(path, "w") as file:
        json.dump({"subsystems": [{"subsystem": "bdev", "config": config}]}, file)
    return path


def beside_peer(options, folder):
    print("| load | Spindle, ns each | peer, ns each | Spindle / peer |")
    print("|---|---:|---:|---:|")
    for kind in ("null", "malloc"):
        config = peer_config(folder, kind)
        for depth in (1, 32, 128):
            # Written, as memory that never was reads from one page of zeroes.
            workload = "randread" if kind == "null" else "randwrite"
            what = f"{kind} {workload} 4 KiB depth {depth}"
            if not re.search(options.only, what):
                continue
            ours, theirs = [], []
            for _ in range(options.rounds):
                ours.append(spindle_load(options.spindle, kind, workload, depth, options.seconds))
                theirs.append(peer_load(options.peer, config, workload, depth, options.seconds))
            mine, other = medians(ours)[1] * 1e3, medians(theirs)[1] * 1e3
            print(f"| {what} | {mine:.1f} | {other:.1f} | {mine / other:.2f} |")
            sys.stdout.flush()


def files(options, folder):
    print("| file | IOPS | fio's | share | CPU, us each | fio's | share |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for place, path in (("disk", folder), ("tmpfs", "/dev/shm")):
        with tempfile.NamedTemporaryFile(dir=path, prefix="spindle-measure-") as image:
            for _ in range(SIZE_MIB):
                image.write(os.urandom(1 << 20))
            image.flush()
            os.fsync(image.fileno())
            for workload in ("randread", "randwrite"):
                for depth in (1, 32, 128):
                    what = f"{place} {workload} 4 KiB depth {depth}"
                    if not re.search(options.only, what):
                        continue
                    ours, theirs = [], []
                    for _ in range(options.rounds):
                        load = (image.name, workload, depth, options.seconds)
                        ours.append(spindle_load(options.spindle, *load, "--interrupt-mode"))
                        theirs.append(fio_load(*load))
                    (iops, cpu), (fio_iops, fio_cpu) = medians(ours), medians(theirs)
                    print(
                        f"| {what} | {iops:.0f} | {fio_iops:.0f} | {iops / fio_iops:.2f} "
                        f"| {cpu:.2f} | {fio_cpu:.2f} | {cpu / fio_cpu:.2f} |"
                    )
                    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("spindle")
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--peer")
    options = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores\n")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        memory(options.spindle)
        print()
        if options.peer:
            beside_peer(options, folder)
            print()
        files(options, folder)
    print(f"\nload average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
