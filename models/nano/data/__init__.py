"""What nano learns from: portraits that are drawn, and speech that is synthesised."""
