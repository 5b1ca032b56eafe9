"""Networks: pure-functional Flax Linen modules and the frozen pretrained ones."""
