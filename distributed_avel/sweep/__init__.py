"""Sweeps: `run_sweep` is the whole of one."""

from distributed_avel.sweep.phases import run_sweep as run_sweep
