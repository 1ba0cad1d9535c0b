"""What a calibration sees: clips, and the states of the live loop over them."""
