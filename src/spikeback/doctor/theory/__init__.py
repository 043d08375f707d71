"""Mean field theory: how much of the gradient each block should pass on."""
