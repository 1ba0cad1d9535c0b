"""What comes in: sound from files, pipes and microphones, as mono float blocks at the model's rate."""
