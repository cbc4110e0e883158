"""Which form each product of a convolution takes in a program: chosen from what the forms cost, measured on
the machine and by the runtime that will run them."""
