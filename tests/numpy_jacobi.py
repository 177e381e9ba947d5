#!/usr/bin/env python3
"""Compares the example jacobi3d with NumPy, and checks what it answers to bad input.

    python3 tests/numpy_jacobi.py --binary target/release/examples/jacobi3d [--device wgpu] [--processes 1,2,4]

With processes (of a build with the feature mpi) only results under mpirun are compared, of so many processes each. With a device only the results on that device are compared, in float32 if it has no more. Each run of the binary is one check. The last line is "N passed, N failed"; the exit status is 1 if any failed.
"""

import argparse
import functools
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np

SHAPE = (37, 24, 41)
STEPS = 200
PES = (1, 2, 3, 8)
BLOCKS = ((1, 1, 1), (2, 2, 2), (5, 3, 4), (1, 22, 2))
SEED = 20260521
# Of simulated runs.
SEEDS = 200
KEYS = {"seconds", "steps", "residual", "cells_per_second", "pes", "device"}
RELATIVE = {np.dtype("f8"): 1e-6, np.dtype("f4"): 1e-4}
RUN_LIMIT_S = 120
# What a remedy is introduced by.
REMEDY = re.compile(r"; \w|--help|did you mean|at least|at most|\buse\b|\btry\b|\bexpected\b|\bsuch as\b|for example")


@functools.cache
def launcher():
    """OpenMPI's `mpirun`, or that of another, which `MPIRUN` names."""
    name = os.environ.get("MPIRUN", "mpirun")
    version = subprocess.run([name, "--version"], capture_output=True, text=True, check=True)
    # More processes than cores; and as root, in a container. Others ask for neither.
    return [name, "--oversubscribe", "--allow-run-as-root"] if "Open MPI" in version.stdout else [name]


def jacobi(field, steps, tolerance=None):
    """The field after the steps, and the largest change of each step."""
    u = field.copy()
    six = u.dtype.type(6)
    residuals = []
    for _ in range(steps):
        mean = (u[:-2, 1:-1, 1:-1] + u[2:, 1:-1, 1:-1] + u[1:-1, :-2, 1:-1] + u[1:-1, 2:, 1:-1]
                + u[1:-1, 1:-1, :-2] + u[1:-1, 1:-1, 2:]) / six
        residuals.append(float(np.abs(mean - u[1:-1, 1:-1, 1:-1]).max()))
        u[1:-1, 1:-1, 1:-1] = mean
        if tolerance is not None and residuals[-1] <= tolerance:
            break
    return u, residuals


def hot_plate(shape, dtype):
    """The problem that the example has built in."""
    u = np.zeros(shape, dtype)
    u[1:-1, 1:-1, 1:-1] = 20
    u[:, 0, :] = 100
    return u


def random_field(dtype):
    field = np.random.default_rng(SEED).uniform(0, 100, SHAPE).astype(dtype)
    field[:, 0, :] = 100
    return field


class Checks:
    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        self.passed = self.failed = 0

    def run(self, *arguments, processes=None):
        command = [str(self.binary), *map(str, arguments)]
        if processes:
            command = [*launcher(), "-n", str(processes), *command]
        try:
            return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=RUN_LIMIT_S,
                                  stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, "none: killed", "", f"no end after {RUN_LIMIT_S} s")

    def report(self, name, problems, ended):
        if not problems:
            self.passed += 1
            print(f"ok      {name}")
            return
        self.failed += 1
        print(f"FAILED  {name}")
        for problem in problems:
            print(f"        {problem}")
        print(f"        command: {' '.join(ended.args)}")
        for stream, text in (("stdout", ended.stdout), ("stderr", ended.stderr)):
            for line in text.splitlines()[:12]:
                print(f"        {stream}: {line}")

    def solves(self, name, field, arguments, steps=STEPS, pes=2, tolerance=None, picture=False, source="in.npy",
               processes=None, moves=False):
        """Runs over the field (or the built-in one, where source is None) and compares everything it answers.

        With moves, blocks must have been moved at random, which only a simulated run tells.
        """
        expected, residuals = jacobi(field, steps, tolerance)
        output, image = self.folder / "out.npy", self.folder / "out.png"
        for path in (output, image):
            path.unlink(missing_ok=True)
        given = ["--steps", steps, "--output", output.name, "--json", "--pes", pes, *arguments]
        given += ["--input", source] if source else []
        given += ["--tolerance", repr(tolerance)] if tolerance is not None else []
        given += ["--image", image.name] if picture else []
        ended = self.run(*given, processes=processes)
        if ended.returncode != 0:
            return self.report(name, [f"exit status {ended.returncode}"], ended)
        problems = field_problems(output, expected)
        problems += summary_problems(ended.stdout, expected, residuals, pes * (processes or 1))
        problems += picture_problems(image) if picture else []
        if moves and not re.search(r"; moves at random: [1-9]", ended.stderr):
            problems.append("no block has moved")
        self.report(name, problems, ended)

    def restarts(self, name, arguments):
        """Runs over the field with and without coroutines that are started again: some are, and no byte differs."""
        plain, output = self.folder / "plain.npy", self.folder / "out.npy"
        for path in (plain, output):
            path.unlink(missing_ok=True)
        ended = self.run(*arguments, "--output", plain.name)
        if ended.returncode != 0:
            return self.report(name, [f"exit status {ended.returncode}"], ended)
        ended = self.run(*arguments, "--output", output.name, "--restart-coroutines", "7")
        problems = [] if ended.returncode == 0 else [f"exit status {ended.returncode}"]
        counts = re.findall(r"^coroutines started again at sync points: (\d+)$", ended.stderr, re.MULTILINE)
        if len(counts) != 1 or int(counts[0]) == 0:
            problems.append(f"coroutines that were started again: {counts}, expected one number above 0")
        if not output.exists() or output.read_bytes() != plain.read_bytes():
            problems.append("the result differs from that of coroutines that run through")
        self.report(name, problems, ended)

    def prints(self, name, arguments, found=(), not_found=(), stderr_lines=None):
        """Runs without fault, and standard output has what it should."""
        ended = self.run(*arguments)
        problems = [] if ended.returncode == 0 else [f"exit status {ended.returncode}"]
        problems += [f"{text!r} is missing on stdout" for text in found if text not in ended.stdout]
        problems += [f"{text!r} stands on stdout" for text in not_found if text in ended.stdout]
        lines = len(ended.stderr.splitlines())
        if stderr_lines is not None and lines not in stderr_lines:
            problems.append(f"{lines} lines on stderr")
        self.report(name, problems, ended)

    def survives_a_closed_pipe(self, name, arguments, stream, status):
        """Ends as it would with somebody reading the stream, and says no word of it on the other one."""
        read, write = os.pipe()
        os.close(read)
        other = {"stdout": "stderr", "stderr": "stdout"}[stream]
        command = [str(self.binary), *map(str, arguments)]
        ended = subprocess.run(command, cwd=self.folder, text=True, timeout=RUN_LIMIT_S, stdin=subprocess.DEVNULL,
                               **{stream: write, other: subprocess.PIPE})
        os.close(write)
        problems = [] if ended.returncode == status else [f"exit status {ended.returncode}, not {status}"]
        if getattr(ended, other):
            problems.append(f"{other} is not empty")
        ended = subprocess.CompletedProcess(command, ended.returncode, ended.stdout or "", ended.stderr or "")
        self.report(name, problems, ended)

    def refuses(self, name, arguments, named):
        """Ends with code 2 and one line that names the thing and the remedy, and leaves no file behind."""
        before = sorted(self.folder.rglob("*"))
        ended = self.run(*arguments)
        problems = [] if ended.returncode == 2 else [f"exit status {ended.returncode}, not 2"]
        lines = ended.stderr.splitlines()
        if len(lines) != 1 or not lines[0].startswith("error: "):
            problems.append("stderr is not one line that starts with 'error: '")
        problems += [f"stderr does not name {text!r}" for text in named if text not in ended.stderr]
        if not REMEDY.search(ended.stderr):
            problems.append("stderr offers no remedy")
        if "panicked" in ended.stderr or "RUST_BACKTRACE" in ended.stderr:
            problems.append("it panicked")
        if ended.stdout:
            problems.append("stdout is not empty")
        left = sorted(set(self.folder.rglob("*")) - set(before))
        problems += [f"it left {path.name} behind" for path in left]
        self.report(f"refuses {name}", problems, ended)
        for path in left:
            path.unlink()


def field_problems(path, expected):
    if not path.exists():
        return [f"there is no {path.name}"]
    found = np.load(path, allow_pickle=False)
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return [f"{path.name} holds {found.dtype}{found.shape}, expected {expected.dtype}{expected.shape}"]
    problems = []
    scale = float(np.abs(expected).max())
    bound = RELATIVE[expected.dtype] * np.abs(expected) + 8 * np.finfo(expected.dtype).eps * scale
    worst = np.unravel_index(np.argmax(np.abs(found - expected) - bound), expected.shape)
    if not abs(found[worst] - expected[worst]) <= bound[worst]:
        at = [int(index) for index in worst]
        problems.append(f"at {at} it is {found[worst]}, NumPy has {expected[worst]}")
    shell = np.ones(expected.shape, bool)
    shell[1:-1, 1:-1, 1:-1] = False
    if not np.array_equal(found[shell], expected[shell]):
        problems.append("the outer layer has changed")
    return problems


def summary_problems(stdout, expected, residuals, pes):
    try:
        lines = stdout.splitlines()
        summary = json.loads(lines[0]) if len(lines) == 1 else None
    except ValueError:
        summary = None
    if not isinstance(summary, dict):
        return ["stdout is not one line of JSON"]
    if set(summary) != KEYS:
        return [f"the summary has the keys {sorted(summary)}, expected {sorted(KEYS)}"]
    problems = []
    if summary["steps"] != len(residuals):
        problems.append(f"{summary['steps']} steps, expected {len(residuals)}")
    if summary["pes"] != pes:
        problems.append(f"{summary['pes']} PEs, expected {pes}")
    if not isinstance(summary["device"], str) or not summary["device"]:
        problems.append(f"the device is {summary['device']!r}")
    scale = float(np.abs(expected).max())
    bound = RELATIVE[expected.dtype] * residuals[-1] + 8 * np.finfo(expected.dtype).eps * scale
    if not abs(summary["residual"] - residuals[-1]) <= bound:
        problems.append(f"residual {summary['residual']}, NumPy has {residuals[-1]}")
    computed = len(residuals) * np.prod([extent - 2 for extent in expected.shape])
    if not summary["seconds"] > 0:
        problems.append(f"{summary['seconds']} seconds")
    elif not np.isclose(summary["cells_per_second"] * summary["seconds"], computed, rtol=1e-3):
        problems.append(f"{summary['cells_per_second']} cells/s in {summary['seconds']} s are not {computed} cells")
    return problems


def picture_problems(path):
    """Whether it is a PNG that decodes, large enough to look at, of more than one colour."""
    if not path.exists():
        return [f"there is no {path.name}"]
    png = path.read_bytes()
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        return [f"{path.name} is no PNG"]
    chunks, position = {}, 8
    while position < len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        content = png[position + 8:position + 8 + length]
        (checksum,) = struct.unpack_from(">I", png, position + 8 + length)
        if checksum != zlib.crc32(kind + content):
            return [f"{path.name}: the checksum of {kind} is wrong"]
        chunks[kind] = chunks.get(kind, b"") + content
        position += 12 + length
    width, height, depth, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    problems = []
    if not (400 <= max(width, height) <= 2000 and (depth, colour) == (8, 2)):
        problems.append(f"{path.name}: {width} x {height} pixels of depth {depth} and colour type {colour}")
    rows = zlib.decompress(chunks[b"IDAT"])
    if len(rows) != height * (1 + 3 * width):
        problems.append(f"{path.name} holds {len(rows)} bytes for {width} x {height} pixels")
    if len(set(rows)) < 32:
        problems.append(f"{path.name} shows next to nothing")
    return problems


def check_results(checks):
    """The same field as NumPy's, in every decomposition."""
    for dtype, combinations in (("f8", [(p, b) for p in PES for b in BLOCKS]), ("f4", list(zip(PES, BLOCKS)))):
        field = random_field(dtype)
        np.save(checks.folder / "in.npy", field)
        for index, (pes, blocks) in enumerate(combinations):
            cut = ",".join(map(str, blocks))
            name = f"{dtype}, {pes} PEs, blocks {cut}"
            checks.solves(name, field, ["--blocks", cut], pes=pes, picture=index == 0)

    field = random_field("f8")
    np.save(checks.folder / "in.npy", field)
    for seed, pes in enumerate(PES):
        checks.solves(f"coroutines started again, {pes} PEs", field,
                      ["--blocks", "3,2,2", "--restart-coroutines", seed], pes=pes)
    for pes in PES:
        checks.restarts(f"started again or not, the same bytes, {pes} PEs",
                        ["--input", "in.npy", "--steps", STEPS, "--blocks", "3,2,2", "--pes", pes])
    checks.solves("the default blocks", field, [], steps=20)
    _, residuals = jacobi(field, 60)
    assert residuals[37] < residuals[36], "the residual falls, so the tolerance is reached at one step"
    between = (residuals[36] + residuals[37]) / 2
    checks.solves("a tolerance ends the run", field, [], tolerance=between)
    checks.solves("one step", field, ["--blocks", "35,1,1"], steps=1)

    np.save(checks.folder / "fortran.npy", np.asfortranarray(field))
    checks.solves("Fortran order", field, [], steps=3, source="fortran.npy")
    np.save(checks.folder / "big.npy", field.astype(">f8"))
    checks.solves("big-endian elements", field, [], steps=3, source="big.npy")
    for version in ((2, 0), (3, 0)):
        with open(checks.folder / "version.npy", "wb") as file:
            np.lib.format.write_array(file, field, version=version)
        checks.solves(f"format version {version[0]}.{version[1]}", field, [], steps=3, source="version.npy")

    thin = field[:3, :5, :4].copy()
    np.save(checks.folder / "thin.npy", thin)
    checks.solves("an interior one cell thick", thin, [], steps=3, pes=8, source="thin.npy", picture=True)
    plate = hot_plate((20, 12, 16), "f8")
    checks.solves("the built-in problem", plate, ["--grid", "20,12,16"], steps=5, source=None)


def check_device(checks, device):
    """The same field as NumPy's on this device, in float32, and float64 or a word that there is none."""
    field = random_field("f4")
    np.save(checks.folder / "in.npy", field)
    for index, (pes, blocks) in enumerate(zip(PES, BLOCKS)):
        cut = ",".join(map(str, blocks))
        checks.solves(f"{device}, f4, {pes} PEs, blocks {cut}", field, ["--blocks", cut, "--device", device],
                      steps=60, pes=pes, picture=index == 0)
    plate = hot_plate((20, 12, 16), "f4")
    checks.solves(f"{device}, the built-in problem", plate, ["--grid", "20,12,16", "--device", device, "--precision", "f32"],
                  steps=5, source=None)
    if device.startswith("wgpu"):
        checks.solves(f"{device}, the built-in problem in the precision that there is", plate,
                      ["--grid", "20,12,16", "--device", device], steps=5, source=None)
        for pes, blocks in ((2, "2,2,2"), (4, "5,3,4")):
            checks.solves(f"two devices of one adapter, {pes} PEs", field, ["--blocks", blocks, "--device", "wgpu:0x2"],
                          steps=60, pes=pes)
        checks.refuses("an adapter that is given too little memory",
                       ["--grid", "32", "--pes", "2", "--output", "never.npy", "--quiet", "--device", "wgpu:mem=100KiB"],
                       ["wgpu:0", "fewer cells", "mem="])
        np.save(checks.folder / "in.npy", random_field("f8"))
        checks.refuses(f"float64 on {device}", ["--input", "in.npy", "--output", "never.npy", "--device", device],
                       ["wgpu:0", "float32"])
        checks.refuses("an adapter that is not there", ["--grid", "8", "--device", "wgpu:77"], ["no wgpu adapter", "wgpu:77"])


def check_processes(checks, counts, devices):
    """The same field as NumPy's on several processes, each with PEs of its own."""
    fields = {dtype: random_field(dtype) for dtype in ("f8", "f4")}
    for count in counts:
        for pes in (1, 2):
            for device in devices:
                dtype = "f4" if device.startswith("wgpu") or pes == 2 else "f8"
                np.save(checks.folder / "in.npy", fields[dtype])
                checks.solves(f"{count} processes of {pes} PEs, {dtype}, {device}", fields[dtype],
                              ["--blocks", "3,2,2", "--device", device], steps=60, pes=pes, processes=count)


def check_simulated(checks):
    """A tiny field, in as many orders as there are seeds: on one process and on several, of blocks that stay or move.

    Blocks move only between the PEs of one process, so each process has several.
    """
    field = random_field("f8")[:7, :6, :8].copy()
    np.save(checks.folder / "in.npy", field)
    for seed in range(SEEDS):
        processes, pes = ((1, 4), (2, 4), (4, 8))[seed % 3]
        moves = seed % 2 == 1
        spec = f"{seed}:processes={processes}" + (":migrate=10" if moves else "")
        checks.solves(f"--sim {spec}", field, ["--blocks", "2,2,2", "--sim", spec], steps=6, pes=pes, moves=moves)


def check_prints(checks):
    small = ["--grid", "8", "--steps", "20"]
    options = ["--input", "--grid", "--blocks", "--steps", "--tolerance", "--output", "--image", "--json",
               "Runtime options", "--pes", "--device", "--quiet"]
    checks.prints("--help lists all options", ["--help"], found=options, stderr_lines=[0])
    ended = checks.run("--help")
    for name, reasons in (("cuda", ["no CUDA", "--features cuda"]), ("wgpu", ["no wgpu adapter", "--features wgpu"])):
        tried = checks.run("--grid", "8", "--steps", "1", "--device", name)
        lines = tried.stderr.splitlines()
        is_clear = tried.returncode == 2 and len(lines) == 1 and any(reason in lines[0] for reason in reasons)
        wrong = [] if name in ended.stdout and (tried.returncode == 0 or is_clear) else [f"{name} neither runs nor says why"]
        checks.report(f"--help lists {name}, which runs or is refused in one line", wrong, tried)
    checks.survives_a_closed_pipe("--help that nobody reads", ["--help"], "stdout", 0)
    checks.survives_a_closed_pipe("a summary that nobody reads", [*small, "--quiet"], "stdout", 0)
    checks.survives_a_closed_pipe("a refusal that nobody reads", [*small, "--bogus"], "stderr", 2)
    checks.survives_a_closed_pipe("a runtime's refusal that nobody reads", ["--pes", "0"], "stderr", 2)
    checks.survives_a_closed_pipe("JSON that nobody reads", [*small, "--output", "closed.npy", "--json"],
                                  "stdout", 0)
    checks.prints("--version", ["--version"], found=["jacobi3d "], stderr_lines=[0])
    checks.prints("a summary for people", small, found=["20 steps"], not_found=["{"], stderr_lines=range(5, 20))
    checks.prints("--quiet", [*small, "--quiet"], found=["20 steps"], stderr_lines=[0])
    np.save(checks.folder / "same.npy", random_field("f8"))
    checks.prints("another spelling of output over input",
                  ["--input", "same.npy", "--output", "./same.npy", "--steps", "2", "--quiet"],
                  found=["2 steps"], stderr_lines=[0])
    checks.prints("output over input", ["--input", "same.npy", "--output", "same.npy", "--steps", "2", "--quiet"],
                  found=["2 steps"], stderr_lines=[0])


def check_refusals(checks):
    folder = checks.folder
    good = random_field("f8")

    def made(name, array, **options):
        np.save(folder / name, array, **options)
        return ["--input", name, "--output", "never.npy", "--image", "never.png"]

    def holed(value):
        field = good.copy()
        field[3, 4, 5] = value
        return field

    files = {
        "two dimensions": (made("flat.npy", good[0]), ["flat.npy", "2 dim"]),
        "four dimensions": (made("four.npy", good[None]), ["four.npy", "4 dim"]),
        "integers": (made("int.npy", good.astype("i8")), ["int.npy", "<i8"]),
        "complex numbers": (made("complex.npy", good.astype("c16")), ["complex.npy", "<c16"]),
        "half precision": (made("half.npy", good.astype("f2")), ["half.npy", "<f2"]),
        "pickled objects": (made("object.npy", good.astype(object), allow_pickle=True), ["object.npy", "|O"]),
        "NaN": (made("nan.npy", holed(np.nan)), ["nan.npy", "NaN", "[3, 4, 5]"]),
        "infinity": (made("inf.npy", holed(np.inf).astype("f4")), ["inf.npy", "inf", "[3, 4, 5]"]),
        "a field without interior": (made("thin.npy", good[:2]), ["thin.npy", "2 x 24 x 41"]),
        "an empty field": (made("none.npy", good[:0]), ["none.npy", "0 x 24 x 41"]),
    }
    whole = made("good.npy", good)
    content = (folder / "good.npy").read_bytes()
    damaged = {
        "a truncated file": (content[:len(content) // 2], ["cut.npy"]),
        "a truncated header": (content[:40], ["cut.npy"]),
        "an empty file": (b"", ["cut.npy"]),
        "bytes after the end": (content + b"more", ["cut.npy"]),
        "text": (b"1.0 2.0 3.0\n" * 50, ["cut.npy"]),
        "an absurd shape": (content.replace(b"(37, 24, 41), }   ", b"(37, 24, 410000)}", 1), ["cut.npy"]),
    }
    for name, (arguments, named) in files.items():
        checks.refuses(name, arguments, named)
    for name, (replaced, named) in damaged.items():
        (folder / "cut.npy").write_bytes(replaced)
        checks.refuses(name, ["--input", "cut.npy", "--output", "never.npy"], named)

    output = ["--output", "never.npy", "--grid", "8", "--steps", "5"]
    checks.refuses("a missing file", ["--input", "missing.npy", "--output", "never.npy"], ["missing.npy"])
    checks.refuses("a folder as input", ["--input", ".", "--output", "never.npy"], ["\".\""])
    checks.refuses("an unknown option", [*output, "--frobnicate"], ["--frobnicate"])
    checks.refuses("a misspelt option", [*output, "--toleranse", "1"], ["--toleranse", "--tolerance", "--help"])
    checks.refuses("an option like no other", [*output, "--bogus"], ["'--bogus' found; --help"])
    for same in ("./never.npy", "../" + folder.name + "/never.npy", str(folder / "never.npy")):
        checks.refuses(f"one file for two results, {same}", [*output, "--image", same], ["--output", "--image", "never.npy"])
    for dtype, step in (("f8", 1), ("f4", 1)):
        huge = np.full((8, 8, 8), np.finfo(dtype).max, dtype)
        np.save(folder / "huge.npy", huge)
        for blocks in ("1,1,1", "2,2,2"):
            checks.refuses(f"an overflow, {dtype}, blocks {blocks}",
                           ["--input", "huge.npy", "--output", "never.npy", "--image", "never.png", "--quiet",
                            "--blocks", blocks], [f"residual of step {step} is inf", "divide the field"])
    for device in ("host:1:mem=100KiB", "host:2:mem=10KiB", "host:2@1,3:mem=60KiB", "host:mem=100KiB:workers=2"):
        checks.refuses(f"a device that is too small, {device}",
                       ["--grid", "32", "--pes", "2", "--output", "never.npy", "--quiet", "--device", device],
                       ["host:", "fewer cells", "mem="])
    checks.refuses("an argument too many", [*output, "stray.npy"], ["stray.npy"])
    checks.refuses("an option without its value", [*output, "--blocks"], ["--blocks"])
    checks.refuses("a file and a grid", [*whole, "--grid", "8"], ["--grid", "--input"])
    checks.refuses("more blocks than cells", [*whole, "--blocks", "36,1,1"], ["--blocks", "36", "35"])
    checks.refuses("two block counts", [*output, "--blocks", "2,2"], ["--blocks", "2,2"])
    checks.refuses("no blocks", [*output, "--blocks", "0,1,1"], ["--blocks", "0,1,1"])
    checks.refuses("a grid without interior", ["--grid", "2"], ["--grid", "2"])
    checks.refuses("a grid beyond all memory", ["--grid", "999999"], ["--grid", "999999"])
    checks.refuses("no steps", [*output[:4], "--steps", "0"], ["--steps", "0"])
    checks.refuses("a tolerance that is no number", [*output, "--tolerance", "small"], ["--tolerance", "small"])
    checks.refuses("no PEs", [*output, "--pes", "0"], ["--pes"])
    checks.refuses("PEs that are no number", [*output, "--pes", "two"], ["--pes"])
    checks.refuses("an unknown device", [*output, "--device", "foo"], ["--device", "foo"])
    checks.refuses("a device that is not in this build", [*output, "--device", "wgpu"], ["`wgpu`", "--features wgpu"])
    checks.refuses("an output folder that does not exist", ["--grid", "8", "--output", "no/o.npy"], ["no/o.npy"])
    checks.refuses("an image folder that does not exist", ["--grid", "8", "--image", "no/o.png"], ["no/o.png"])
    checks.refuses("a folder as output", ["--grid", "8", "--output", "."], ["\".\""])
    checks.refuses("a device file as output", ["--grid", "8", "--output", "/dev/null"], ["/dev/null"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=Path("target/release/examples/jacobi3d"))
    parser.add_argument("--device")
    parser.add_argument("--processes")
    given = parser.parse_args()
    binary = given.binary.resolve()
    if not binary.is_file():
        print(f"error: there is no {binary}; run cargo build --release --example jacobi3d", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="chare-numpy-") as folder:
        checks = Checks(binary, Path(folder))
        if given.processes:
            devices = [given.device] if given.device else ["host", "host:2:workers=2", "host:2:polled"]
            check_processes(checks, map(int, given.processes.split(",")), devices)
        elif given.device:
            check_device(checks, given.device)
        else:
            check_results(checks)
            check_simulated(checks)
            check_prints(checks)
            check_refusals(checks)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
