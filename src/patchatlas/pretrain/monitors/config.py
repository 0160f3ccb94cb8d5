"""Settings of the monitors: how often they look, and from where on a number is alarming.

A limit of None leaves its rule out. Where the start values come from is said in docs/pretrain-monitors.md.
"""

from typing import Literal

from pydantic import Field, model_validator

from patchatlas.pretrain.settings import Settings, Share

OnCollapse = Literal["warn", "stop"]


class Limits(Settings):
    """From where on a number is alarming."""

    row_entropy: Share | None = 0.99
    """Mean entropy of the teacher's targets over ln K, above: all rows are equal (uniform collapse)."""
    stuck_loss: Share | None = 0.01
    """DINO loss within this share of ln K ..."""
    stuck_kl: float = Field(default=0.01, ge=0)
    """... while the divergence of teacher and student is below this, nats: nothing is left to learn."""
    marginal_entropy: Share | None = 0.5
    """Entropy over ln K of the mean softmax of teacher logits over the window, below: mode collapse."""
    dead_prototypes: Share | None = 0.5
    """Share of prototypes that no row of the window is nearest to, above."""
    duplicate_prototypes: Share | None = 0.3
    """Share of prototypes with a double (cosine above 0.975), above."""
    feature_std: float | None = Field(default=0.3, ge=0)
    """Standard deviation of unit features x sqrt(D), below: all features are equal (complete collapse)."""
    feature_cosine: Share | None = 0.9
    """Mean cosine of pairs of features, above: the same."""
    rank: Share | None = 0.2
    """RankMe over D, below: dimensional collapse."""
    rank_of_best: Share | None = 0.5
    """RankMe over the best seen since `from_step`, below: warning. Random weights may have more than trained ones."""
    lidar: Share | None = 0.05
    """LiDAR over D, below: warning."""
    alpha: tuple[float, float] | None = (0.3, 5.0)
    """Slope of the eigenvalues, outside: warning. Near 1 is best, but sound runs of short tokens on few volumes rise to
    3.6, and ones that collapse have 3 to 4.4: between them `rank` tells, not the slope."""
    uniformity: float | None = -1.0
    """Uniformity at t = 2, above: warning. 0 is collapse, -4 the best."""
    sigreg: float | None = None
    """Gaussian test over its value on a real Gaussian, above: warning. Only features trained by SIGReg are meant to
    pass; 10 is a start for those."""
    foreground_r2: Share | None = 0.9
    """R^2 of the crop's foreground ratio from its class token, above: warning where the next is below; collapse where
    `background_share` is above. Networks that have learnt nothing may have 0.98."""
    foreground_r2_left: Share | None = 0.5
    """What class tokens leave open of that ratio, 1 - R^2, over the same at the first look, below: training made it so,
    not the crops alone."""
    background_share: Share | None = 0.55
    """Share of the variance of patch tokens that foreground or background explains, above: warning. Sound runs have up
    to 0.42, networks that are shown nothing but air and body 0.6 to 0.8."""
    below_ratio: Share | None = 0.01
    """Share of crops under their minimum of foreground, above: warning."""
    koleo: float | None = 14.0
    """KoLeo, above: class tokens of a batch are equal. 18.4 is the highest it can be, 14 means a distance of rounding
    errors. LayerScale of 1e-5 gives up to 12 before the first step."""
    twins: Share | None = 0.1
    """Share of the steps since the last look in which two crops of a batch had the same class token, above: warning. In
    small volumes it happens by chance that a crop is drawn twice."""
    initial_std: float | None = Field(default=1e-3, ge=0)
    """Standard deviation of the class token over inputs over its size, before the first step, below: warning."""


class MonitorConfig(Settings):
    """What is watched and what follows from it."""

    on_collapse: OnCollapse = "warn"
    """warn: say so and go on. stop: end the run; the last good checkpoint is kept either way."""
    spectra_every: int = Field(default=100, gt=0)
    """Steps between looks at the features held, which cost a singular value decomposition."""
    from_step: int | None = Field(default=None, ge=0)
    """Everything but faults seen at once is judged from this step on; if not given from the end of the warm-ups of the
    learning rate and of the teacher's temperature, and not before step 200."""
    patience: int = Field(default=500, gt=0)
    """Steps in a row on which the entropy of targets, or loss and divergence, must be alarming."""
    looks: int = Field(default=2, gt=0)
    """The same for numbers of the features, in looks."""
    window_rows: int = Field(default=20_000, gt=0)
    """Rows of teacher logits over which marginal entropy and dead prototypes are taken."""
    queue_tokens: int = Field(default=4096, gt=0)
    """Features held of each kind: foreground tokens, background tokens, class tokens."""
    tokens_a_step: int = Field(default=256, gt=0)
    """At most so many tokens of each kind are taken in a step."""
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _possible(self) -> "MonitorConfig":
        if self.limits.alpha is not None and self.limits.alpha[0] >= self.limits.alpha[1]:
            raise ValueError(f"limits.alpha runs from a lower to a higher slope, given {self.limits.alpha}")
        return self
