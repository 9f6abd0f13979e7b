"""Guests of Slight's ABI in C: bindings generated from the .wit files, compiled with clang and wasi-libc."""
