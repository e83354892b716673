"""Records: each run is one JSON line with a type, a version, and all data that are needed to repeat the run."""

from howsparse.records.cases import CaseKey, CaseRecord
from howsparse.records.iteration import IterationRecord, IterationStep
from howsparse.records.lines import append_record, read_lines, read_records
from howsparse.records.origin import Provenance, provenance
from howsparse.records.types import (
    SCHEMA_VERSION,
    AnswerRecord,
    Measurement,
    Record,
    Study,
    TrainRecord,
)
from howsparse.records.upgrade import settings_hash

__all__ = [
    "SCHEMA_VERSION",
    "AnswerRecord",
    "CaseKey",
    "CaseRecord",
    "IterationRecord",
    "IterationStep",
    "Measurement",
    "Provenance",
    "Record",
    "Study",
    "TrainRecord",
    "append_record",
    "provenance",
    "read_lines",
    "read_records",
    "settings_hash",
]
