//! Files of `torch.save`.
