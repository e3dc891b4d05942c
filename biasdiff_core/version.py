"""The version of this package: what the command line prints and every audit records."""

__version__ = "0.1.0"
