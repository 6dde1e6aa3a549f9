"""This machine: its devices and how they are shared out, its packages and its identity."""
