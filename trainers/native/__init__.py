"""LIF layers in C for CPUs, compiled by the machine's own compiler on first use."""
