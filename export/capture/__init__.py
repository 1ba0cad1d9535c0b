"""From torch to graphs: the five of the contract, and what they cost."""
