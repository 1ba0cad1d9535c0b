"""Does a graph compute what the PyTorch network computes?"""
