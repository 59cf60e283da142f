"""Stub CUDA libraries: enough for onnxruntime's CUDA provider to start without a GPU, and nothing can be computed.

The provider's own kernel registry and capability checks then decide where nodes go. Built for the onnxruntime-gpu
wheel that is installed, from the symbols that its libraries miss. Needs gcc and nm; seen to work with 1.31.1.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

# Where a 0 will not do: handles that must not be null, a device of compute capability 9.0, memory.
PROPERTIES = "__builtin_memset(p, 0, 1008); int *i = (int *)((char *)p + 360); i[0] = 9; i[1] = 0; return 0;"
ALLOCATE = "*p = malloc(n + 256); return 0;"
HANDLE = "static int x; *p = &x; return 0;"
ANSWERS = {
    "cudnnCreate": f"int cudnnCreate(void **p) {{ {HANDLE} }}",
    "cublasCreate_v2": f"int cublasCreate_v2(void **p) {{ {HANDLE} }}",
    "cublasLtCreate": f"int cublasLtCreate(void **p) {{ {HANDLE} }}",
    "cudaStreamCreate": f"int cudaStreamCreate(void **p) {{ {HANDLE} }}",
    "cudaStreamCreateWithFlags": f"int cudaStreamCreateWithFlags(void **p, int f) {{ {HANDLE} }}",
    "cudaEventCreateWithFlags": f"int cudaEventCreateWithFlags(void **p, int f) {{ {HANDLE} }}",
    "cudaMalloc": f"int cudaMalloc(void **p, unsigned long n) {{ {ALLOCATE} }}",
    "cudaMallocHost": f"int cudaMallocHost(void **p, unsigned long n) {{ {ALLOCATE} }}",
    "cudaHostAlloc": f"int cudaHostAlloc(void **p, unsigned long n, int f) {{ {ALLOCATE} }}",
    "cudaMemGetInfo": "int cudaMemGetInfo(unsigned long *a, unsigned long *b) { *a = *b = 1ul << 34; return 0; }",
    "cudaGetDeviceProperties": f"int cudaGetDeviceProperties(void *p, int d) {{ {PROPERTIES} }}",
    "cudaGetDeviceCount": "int cudaGetDeviceCount(int *a) { *a = 1; return 0; }",
    "cudaGetDevice": "int cudaGetDevice(int *a) { *a = 0; return 0; }",
    "cudaDeviceGetAttribute": "int cudaDeviceGetAttribute(int *v, int a, int d)"
    " { *v = a == 75 ? 9 : a == 76 ? 0 : 1; return 0; }",
    "cudaDriverGetVersion": "int cudaDriverGetVersion(int *a) { *a = 13000; return 0; }",
    "cudaRuntimeGetVersion": "int cudaRuntimeGetVersion(int *a) { *a = 13000; return 0; }",
    "cudaGetErrorString": 'const char *cudaGetErrorString(int e) { return "stub"; }',
    "cudnnGetErrorString": 'const char *cudnnGetErrorString(int e) { return "stub"; }',
    "cudaGetErrorName": 'const char *cudaGetErrorName(int e) { return "stub"; }',
    "__cudaRegisterFatBinary": "void **__cudaRegisterFatBinary(void *p) { static void *x[4]; return x; }",
}
VERSIONED = {"libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libcudnn.so.9"}
# The TensorRT provider is never used, but listing the kernels loads it.
TENSORRT = ("libnvinfer.so.10", "libnvonnxparser.so.10")
OTHERS = ("libcurand.so.10", "libcublas.so.13", "libcublasLt.so.13", "libcuda.so.1")
CUDA_SYMBOL = re.compile(r"(cu[A-Z]|cu[a-z]+[A-Z]|__cuda)")
DYNAMIC = re.compile(rb"\0(cudnn[A-Z]\w+)(?=\0)")  # names that the provider looks up when it needs them
TENSORRT_SYMBOL = re.compile(r"(createInfer|createNvOnnx|getPluginRegistry|getInferLibVersion)")


def build(folder: Path) -> None:
    """Compile every library that the wheel's providers load."""
    folder.mkdir(parents=True, exist_ok=True)
    for library, symbols in missing().items():
        _compile(folder / library, symbols)


def missing() -> dict[str, set[str]]:
    """Library → the symbols that the wheel expects in it."""
    wanted: dict[str, set[str]] = defaultdict(set)
    for library in (*OTHERS, *TENSORRT):
        wanted[library] = set()
    for name in _undefined() | _looked_up():
        symbol, _, library = name.partition("@")
        if TENSORRT_SYMBOL.match(symbol):
            for each in TENSORRT:
                wanted[each].add(symbol)
        elif CUDA_SYMBOL.match(symbol):
            wanted[library or _home(symbol)].add(symbol)
    return wanted


def _home(symbol: str) -> str:
    prefixes = {"cudnn": "libcudnn.so.9", "cuda": "libcudart.so.13", "__cuda": "libcudart.so.13"}
    return next((library for prefix, library in prefixes.items() if symbol.startswith(prefix)), "libcuda.so.1")


def _undefined() -> set[str]:
    found: set[str] = set()
    for library in _providers():
        command = ["nm", "-D", "--undefined-only", str(library)]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found.update(line.split()[-1] for line in listed.splitlines())
    return found


def _looked_up() -> set[str]:
    return {name.decode() for library in _providers() for name in DYNAMIC.findall(library.read_bytes())}


def _providers() -> list[Path]:
    spec = importlib.util.find_spec("onnxruntime")
    found = (
        list((Path(spec.origin).parent / "capi").glob("libonnxruntime_providers_*.so")) if spec and spec.origin else []
    )
    if not found:
        raise SystemExit("onnxruntime-gpu is not installed here; `make placement` sets up an environment that has it")
    return found


def _compile(library: Path, symbols: set[str]) -> None:
    functions = [ANSWERS.get(name, f"long {name}(void) {{ return 0; }}") for name in sorted(symbols)]
    with tempfile.TemporaryDirectory() as folder:
        source, script = Path(folder, "stub.c"), Path(folder, "versions")
        source.write_text("\n".join(["extern void *malloc(unsigned long);", "int stub;", *functions]), "utf-8")
        script.write_text(f"{library.name} {{ global: *; }};", "utf-8")
        versions = [f"-Wl,--version-script={script}"] if library.name in VERSIONED else []
        command = ["gcc", "-w", "-fno-builtin", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", *versions]
        subprocess.run([*command, "-o", str(library), str(source)], check=True)
