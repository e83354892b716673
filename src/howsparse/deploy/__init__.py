"""Smaller and faster networks: what a mask brings on this machine, compaction, sparse execution, and files."""

from howsparse.deploy.deployed import DeployedNetwork, load_deployed, save_deployed
from howsparse.deploy.onnx import Exported, export_onnx
from howsparse.deploy.timing import Latency, bytes_of, latency

__all__ = [
    "DeployedNetwork",
    "Exported",
    "Latency",
    "bytes_of",
    "export_onnx",
    "latency",
    "load_deployed",
    "save_deployed",
]
