"""Probability distributions with torch's draws, as `torch.distributions`."""

from weft.distributions import constraints, kl, transforms
from weft.distributions.continuous import (
    Cauchy,
    Exponential,
    Gumbel,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    Uniform,
)
from weft.distributions.discrete import (
    Bernoulli,
    Binomial,
    Categorical,
    Geometric,
    Multinomial,
    NegativeBinomial,
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
    Poisson,
)
from weft.distributions.distribution import Distribution, ExponentialFamily, Independent
from weft.distributions.gamma import (
    Beta,
    Chi2,
    Dirichlet,
    FisherSnedecor,
    Gamma,
    LKJCholesky,
    StudentT,
    Wishart,
)
from weft.distributions.kl import kl_divergence, register_kl
from weft.distributions.mixture import ContinuousBernoulli, MixtureSameFamily, VonMises
from weft.distributions.registry import biject_to, transform_to
from weft.distributions.transformed import (
    ExpRelaxedCategorical,
    HalfCauchy,
    HalfNormal,
    InverseGamma,
    Kumaraswamy,
    LogisticNormal,
    LogitRelaxedBernoulli,
    LogNormal,
    Pareto,
    RelaxedBernoulli,
    RelaxedOneHotCategorical,
    TransformedDistribution,
    Weibull,
)
from weft.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    CatTransform,
    ComposeTransform,
    CorrCholeskyTransform,
    CumulativeDistributionTransform,
    ExpTransform,
    IndependentTransform,
    LowerCholeskyTransform,
    PositiveDefiniteTransform,
    PowerTransform,
    ReshapeTransform,
    SigmoidTransform,
    SoftmaxTransform,
    SoftplusTransform,
    StackTransform,
    StickBreakingTransform,
    TanhTransform,
    Transform,
    identity_transform,
)
