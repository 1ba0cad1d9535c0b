"""One chunk of video from one window of sound: the static-dynamic loop and everything between two engines."""
