"""Losses as pure functions of tensors.

All losses accept any floating type, compute in float32 or wider (also under autocast), and return
a scalar of that type. Contrastive losses take a
:class:`~simcse_kit.losses.contrastive_batch.ContrastiveBatch`, which checks shapes and options.
"""
