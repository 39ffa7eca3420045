"""Engines: ways of running tasks, one function each."""
