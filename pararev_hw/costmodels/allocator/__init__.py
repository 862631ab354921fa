"""What PyTorch's allocator counts beside the traced tensors: what libraries allocate inside an operation."""
