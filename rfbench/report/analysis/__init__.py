"""From frames of records to statistics and verdicts."""
