"""The small trained model that ships with rap-edge."""
