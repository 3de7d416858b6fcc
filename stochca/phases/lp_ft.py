"""LP-FT (Kumar et al., ICLR 2022): the head is fitted to frozen features before everything is trained."""

import torch

from stochca._typing import TimmModule
from stochca.config.selection import SELECTIONS
from stochca.data.examples import Examples
from stochca.phases.first_phase import ClassTexts, FirstPhase
from stochca.phases.linear_head import best_regression, features, fit_logistic_regression, linear_heads


class FittedHead(FirstPhase):
    """The choice `phases: lp_ft`."""

    def check(self, student: TimmModule, class_texts: ClassTexts | None) -> None:
        linear_heads(student)

    def run(
        self, student: TimmModule, examples: Examples, class_texts: ClassTexts | None, *, refit: bool
    ) -> str:
        """Replace the head by the best of one logistic regression per strength `C`, chosen on validation.

        With `refit`, the best is fitted once more, to the training and validation images together.
        """
        heads = linear_heads(student)
        train_rows, train_labels = features(student, examples.train, examples)
        rows, labels = features(student, examples.validation, examples)
        # Solved on standardised features, where one grid of strengths fits every backbone.
        mean, std = train_rows.mean(0), train_rows.std(0, correction=0).clamp_min(1e-6)
        train_rows, rows = (train_rows - mean) / std, (rows - mean) / std
        classes = heads[0].out_features
        C, scores, weight, bias = best_regression(
            (train_rows, train_labels),
            (rows, labels),
            classes,
            self.config.C,
            selection=examples.selection,
            class_weights=examples.class_weights_of_images,
        )
        if refit:
            everything = torch.cat([train_rows, rows]), torch.cat([train_labels, labels])
            weights = examples.class_weights_of_images
            weight, bias = fit_logistic_regression(*everything, classes, C, weights)
        weight = weight / std
        with torch.no_grad():
            for head in heads:
                head.weight.copy_(weight)
                head.bias.copy_(bias - weight @ mean)
        reached = f"validation {SELECTIONS[examples.selection].title} {scores.value:.3f}"
        return f"the head was fitted first, with C = {C:g}: {reached}"
