"""What a person is shown: the whole answer for one network, its table and its picture."""

from howsparse.report.assessment import Assessment, assess
from howsparse.report.table import answer_table

__all__ = ["Assessment", "answer_table", "assess"]
