"""Smaller and faster networks: what a mask brings on this machine, compaction, sparse execution, and files."""

from howsparse.deploy.timing import Latency, bytes_of, latency

__all__ = ["Latency", "bytes_of", "latency"]
