"""What comparisons on ResNet-20 and CIFAR-10 have in common. A change here changes the recipes of all of them."""

from ..recipes.schedule import OptimizerSettings, Rate, Schedule

STAGES = "re:layer.*conv"
"""The convolutions of the stages; the stem and the classifier, of ResNet-20 0.4 % of the weights, stay dense."""

SCHEDULE = Schedule(
    batch_size=128,
    shape_rate=Rate(peak=0.01, decay="cosine", final=0.1),
    optimizer=OptimizerSettings(kind="sgd", momentum=0.9, nesterov=True, weight_decay=1e-4),
    precision="bfloat16",
    channels_last=True,
    seed=0,
)
"""Epochs, updates and the rate of retraining are each comparison's own."""


def stage_sparsity(depth: int, times: float) -> float:
    """Zeros in the stages that make the whole network `times` smaller, the stem and the classifier being dense."""
    blocks, stem, classifier = (depth - 2) // 6, 3 * 16 * 9, 64 * 10
    layers = [(16, 16)] * (2 * blocks)
    for width in (32, 64):
        layers += [(width // 2, width)] + [(width, width)] * (2 * blocks - 1)
    stages = sum(inputs * outputs * 9 for inputs, outputs in layers)
    return 1 - ((stages + stem + classifier) / times - stem - classifier) / stages
