import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from wheel_of_cargo import make

make(Path(__file__).parent, "shimd_wasmtime_native", "libshimd_wasmtime.so")
