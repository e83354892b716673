"""Smaller and faster networks: what a mask brings on this machine, compaction, sparse execution, and files."""

from howsparse.deploy.bench import Benched, bench
from howsparse.deploy.channel_mask import channel_mask
from howsparse.deploy.compact import Compacted, compact, compacted
from howsparse.deploy.deployed import DeployedNetwork, load_deployed, save_deployed
from howsparse.deploy.onnx import Exported, export_onnx
from howsparse.deploy.semi_structured import semi_structured
from howsparse.deploy.sparse import SparseLinear
from howsparse.deploy.sparse_conv import SparseConv2d
from howsparse.deploy.sparsify import sparsify
from howsparse.deploy.timing import Latency, bytes_of, latency

__all__ = [
    "Benched",
    "Compacted",
    "DeployedNetwork",
    "Exported",
    "Latency",
    "SparseConv2d",
    "SparseLinear",
    "bench",
    "bytes_of",
    "channel_mask",
    "compact",
    "compacted",
    "export_onnx",
    "latency",
    "load_deployed",
    "save_deployed",
    "semi_structured",
    "sparsify",
]
