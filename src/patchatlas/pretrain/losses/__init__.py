"""The terms of the objective, as pure functions of tensors: they know nothing of networks, files or axes of space.

A step with all of them, in order; `ranks` is `Ranks.here()`:

1. all micro-batches: teacher logits of the globals (and of the locals if `config.teacher_sees_locals`) without
   gradient, weights from the crops' ratios: `weights.pair_weights`, `weights.counted_tokens`, `weights.token_weights`;
2. once: `weights.mean_total` of the totals of all micro-batches; `sinkhorn.sinkhorn` of the class tokens of all teacher
   views of all micro-batches together, `ibot.patch_targets` of all masked tokens together; then push to the queues;
3. every micro-batch: `dino.dino_loss`, `ibot.ibot_loss` with those totals, `koleo.koleo_loss` for each global view,
   `gram.gram_loss`, `sigreg.sigreg_terms`; backward (KoLeo and SIGReg are means of a micro-batch: divide by their
   number); then clip and step once.
"""
