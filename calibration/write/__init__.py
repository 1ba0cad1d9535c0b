"""The calibrated bundle, its ledger and its report."""
