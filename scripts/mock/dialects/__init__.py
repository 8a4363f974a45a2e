"""How each family of backends is asked and how it speaks; see `base` for the contract."""
