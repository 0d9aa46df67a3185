"""Chores: what the clock asks for. Each is harmless when it runs twice, late, or from two schedulers."""
