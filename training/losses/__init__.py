"""What a draft is trained to make small: each loss once, as a pure function of logits or states."""
