"""The steps of a calibration, in order, and what they share."""
