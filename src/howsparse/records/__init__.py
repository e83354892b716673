"""Records: one run as one JSON line, typed and versioned, with all that is needed to make it again."""

from howsparse.records.lines import append_record, read_lines, read_records
from howsparse.records.origin import Provenance, provenance
from howsparse.records.types import (
    SCHEMA_VERSION,
    AnswerRecord,
    CaseKey,
    CaseRecord,
    IterationRecord,
    IterationStep,
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
