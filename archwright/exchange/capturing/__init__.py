"""How a PyTorch module becomes a net: export, program, align, lower (with its rules), merge, finish."""
