"""Settings of the objective: which terms count how much, and what foreground has to do with it.

Views are globals first, then locals. Foreground ratios are shares of voxels, 0..1, as the crops say them; pictures are
all foreground, so none of the foreground settings changes anything there.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from patchatlas.pretrain.settings import Settings, Share

Weight = Annotated[float, Field(ge=0)]

Weighting = Literal["none", "pair", "mean"]
LocalPairs = Literal["all", "parent"]
PatchTargets = Literal["all", "foreground", "prototype"]


class DinoConfig(Settings):
    """Class tokens of two views agree on prototypes (Caron et al. 2021, arXiv 2104.14294)."""

    weight: Weight = 1.0
    """0 leaves the term out."""
    student_temp: float = Field(default=0.1, gt=0)
    """Temperature of the student's softmax."""
    local_scale: Weight = 1.0
    """Weight of a pair with a local student beside a pair of globals; 1 counts every pair once, as DINOv3 does."""
    local_pairs: LocalPairs = "all"
    """all: a local is compared with every global. parent: only with the global that it was cut from."""


class IbotConfig(Settings):
    """Masked patch tokens are told from the unmasked ones of the teacher (Zhou et al. 2022, arXiv 2111.07832)."""

    weight: Weight = 1.0
    student_temp: float = Field(default=0.1, gt=0)


class KoleoConfig(Settings):
    """Class tokens keep away from their nearest neighbour (Sablayrolles et al. 2019, arXiv 1806.03198)."""

    weight: Weight = 0.1
    """Per global view."""
    across_ranks: bool = False
    """Whether neighbours may come from other ranks."""


class GramConfig(Settings):
    """Patch similarities stay those of an earlier teacher on the same crop (Simeoni et al. 2025, arXiv 2508.10104)."""

    weight: Weight = 0.0
    from_step: int = Field(default=0, ge=0)
    """First optimiser step on which the term counts; the teacher of that step becomes the Gram teacher."""
    refresh_every: int | None = Field(default=None, gt=0)
    """Steps after which the Gram teacher becomes the teacher of the day; never if not given."""


class SigregConfig(Settings):
    """Embeddings of the views agree and are spread as a round Gaussian (Balestriero and LeCun 2025, arXiv 2511.08544).

    An objective of its own: set the weights of dino, ibot and koleo to 0 to train with it alone, without a teacher.
    """

    weight: Weight = 0.0
    share: Share = 0.05
    """lambda: share of the Gaussian test; the rest is how far views lie from the mean of their globals."""
    slices: int = Field(default=256, gt=0)
    """Random directions a step."""
    knots: int = Field(default=17, ge=2)
    """Points of the integral over frequencies."""
    reach: float = Field(default=3.0, gt=0)
    """Highest frequency."""


class MatchConfig(Settings):
    """Patch tokens of two global crops agree where both show the same place (van den Oord et al. 2018, arXiv
    1807.03748, patch by patch).

    An objective of its own, or beside others: with dino, ibot and koleo at 0 there is neither teacher nor mask.
    """

    weight: Weight = 0.0
    temperature: float = Field(default=0.07, gt=0)
    """Of the softmax over cosines."""
    radius: float = Field(default=1.2, ge=0)
    """Tokens of the other crop whose centres lie closer to the place than this are no negatives; in patches."""
    others: int = Field(default=8, ge=0)
    """Tokens of each other sample of a micro-batch that are negatives, drawn anew in each; those of the same volume or
    photograph never are."""
    margin: float = Field(default=0.25, ge=0)
    """Places closer than this to the edge of the other crop are left out; in patches. `distil.across` heeds it too."""


class DistilConfig(Settings):
    """Tokens of the global crops are like those of another encoder, which does not learn.

    An objective of its own, or beside others. That encoder sees the same crops, as they were varied, and has the same
    patch. Where its tokens are as long as the student's they are compared as they are, so that the student takes its
    place; else through one linear layer, which is thrown away.
    """

    weight: Weight = 0.0
    encoder: str | None = None
    """Its name, as for `load_encoder`: a released model, a file, `bundled:NAME`; or that of the one which
    `train(distilled=...)` is given."""
    across: Weight = 0.0
    """Weight, beside 1 for the same crop, of what the encoder says of the other global crop where that shows the same
    place, at least `match.margin` from its edge: the student then learns what does not change with the view. Crops must
    share something."""
    cls: Weight = 0.0
    """Weight of the class tokens, beside 1 for patches."""
    stamp: str | None = None
    """Hash of all that its tokens follow from: weights, layer, norm, precision. Filled in by a run."""

    @model_validator(mode="after")
    def _possible(self) -> "DistilConfig":
        if self.weight and self.encoder is None:
            raise ValueError("distil has a weight but names no encoder; set loss.distil.encoder")
        if self.encoder is not None and not self.weight:
            raise ValueError("distil names an encoder but has weight 0, so nothing would be learnt of it; give it one")
        return self


class SinkhornConfig(Settings):
    """Teacher targets that share the rows out evenly over the prototypes."""

    iterations: int = Field(default=3, gt=0)
    queue_rows: int = Field(default=0, ge=0)
    """Class token rows of earlier steps, on every rank, that are shared out together with those of this step."""
    queue_patch_rows: int = Field(default=0, ge=0)
    """The same of masked patch rows."""


class ForegroundConfig(Settings):
    """What foreground does to the losses; as it stands, nothing.

    Solutions 1, 2 and 6 (sampler, locals inside globals, several thresholds) are settings of the crops; these are the
    other three, all of them weights or targets inside the same sums.
    """

    weighting: Weighting = "none"
    """pair: a pair counts by the ramp of both its ratios, inside the sum. mean: the DINO term as a whole is multiplied
    by the mean ratio of the batch, an arm of the ablation that cannot tell an air crop from a body crop."""
    ramp: tuple[Share, Share] = (0.05, 0.4)
    """Ratios at and below the first count 0, at and above the second 1, between them in proportion."""
    hierarchical: bool = False
    """A local with too little foreground is compared with the locals that have enough, no longer with globals. The
    teacher then sees the locals too."""
    hierarchical_below: Share = 0.2
    """What too little is."""
    patches: PatchTargets = "all"
    """Which patch tokens have targets. foreground: only those with enough of it, in iBOT and its Sinkhorn,
    Gram, match and distil. prototype: the others are assigned prototype 0, outside Sinkhorn, and no other token is."""
    patch_threshold: Share = 0.05
    """Share of a patch that must be foreground for its token to count as foreground."""

    @model_validator(mode="after")
    def _possible(self) -> "ForegroundConfig":
        low, high = self.ramp
        if low >= high:
            raise ValueError(f"ramp must rise from a lower to a higher ratio, given {low} to {high}")
        if self.hierarchical and not self.hierarchical_below:
            raise ValueError("hierarchical with hierarchical_below 0 does nothing; raise it or leave hierarchical out")
        return self


class LossConfig(Settings):
    """The whole objective: the sum of its terms, each by its weight."""

    dino: DinoConfig = DinoConfig()
    ibot: IbotConfig = IbotConfig()
    koleo: KoleoConfig = KoleoConfig()
    gram: GramConfig = GramConfig()
    sigreg: SigregConfig = SigregConfig()
    match: MatchConfig = MatchConfig()
    distil: DistilConfig = DistilConfig()
    sinkhorn: SinkhornConfig = SinkhornConfig()
    foreground: ForegroundConfig = ForegroundConfig()

    @model_validator(mode="after")
    def _possible(self) -> "LossConfig":
        terms = ("dino", "ibot", "sigreg", "match", "distil")
        if not any(getattr(self, name).weight for name in terms):
            raise ValueError(f"{', '.join(terms)} all have weight 0, so nothing would be learnt; give one a weight")
        return self

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares with the teacher."""
        return bool(self.dino.weight or self.ibot.weight or self.gram.weight)

    @property
    def needs_matches(self) -> bool:
        """Whether any term asks which patches of two crops show the same place."""
        return bool(self.match.weight or (self.distil.weight and self.distil.across))

    @property
    def trains_cls(self) -> bool:
        """Whether any term looks at class tokens; if none does, they say nothing of how a run goes."""
        distilled = self.distil.weight and self.distil.cls
        return bool(self.dino.weight or self.koleo.weight or self.sigreg.weight or distilled)

    @property
    def teacher_sees_locals(self) -> bool:
        """Whether the teacher needs a pass over the locals."""
        return bool(self.dino.weight) and self.foreground.hierarchical
