"""Sweeps: `run_sweep` runs one."""

from distributed_avel.studies.sweep.sweep import run_sweep as run_sweep
