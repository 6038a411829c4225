"""The report of a detector: every source of generated images against all real ones, for detector and control."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detection.tiny import LEFT_OUT, save_noise, thresholds, unsure_detector
from rediffuse.detection.calibration import Calibration
from rediffuse.detection.config import FeatureName
from rediffuse.detection.detector import UNFAMILIAR, Detector
from rediffuse.detection.evaluate import (
    Comparison,
    Decisions,
    Evaluation,
    GroupDecisions,
    Judged,
    JudgedImages,
    Outcome,
    Performance,
    coverage,
    evaluate,
    evaluation_table,
    evaluation_tables,
    judge_labelled,
    judge_results,
    require_both_classes,
    roc_curves,
)
from rediffuse.detection.familiarity import Familiarity
from rediffuse.detection.features import FEATURES
from rediffuse.detection.labelled import LabelledImage
from rediffuse.detection.left_out import LeftOut
from rediffuse.detection.metrics import Figures, Interval, roc_auc
from rediffuse.detection.scorers import BandScorer
from rediffuse.detection.verdict import Decision, Verdict
from rediffuse.dire.job import FileMeta, FileResult
from rediffuse.dire.reconstruct import Reconstruction
from rediffuse.errors import InputError, SettingsMismatch
from rediffuse.images.find import FoundImage, find_images
from sampling.tiny import unet

LABELS = torch.arange(40) % 2
SOURCES = ["real" if label == 0 else ("ddpm", "ddim")[index % 4 // 2] for index, label in enumerate(LABELS.tolist())]


def detector(name: FeatureName, reconstruction: Reconstruction) -> Detector:
    """A detector for which a third of these images each is real, unsure and generated, and a tenth is unfamiliar."""
    features = FEATURES[name].measure(reconstruction)
    count = features.shape[1]
    scorer = BandScorer(
        input=FEATURES[name],
        mean=features.mean(axis=0),
        scale=features.std(axis=0),
        weight=np.linspace(-0.1, 0.2, count),
        offset=0.0,
    )
    calibration = Calibration(slope=0.3, offset=-0.2)
    real, generated = np.quantile(calibration.probabilities(scorer.logits(reconstruction)), [0.34, 0.66])
    familiarity = Familiarity(centres=np.stack([features.mean(axis=0)] * 2), precision=np.eye(count))
    return Detector(
        scorer=scorer,
        familiarity=replace(familiarity, limit=float(np.quantile(familiarity.distances(features), 0.9))),
        settings=reconstruction.settings,
        calibration=calibration,
        thresholds=thresholds(float(real), float(generated)),
        left_out=LEFT_OUT,
        training={},
    )


def images() -> list[LabelledImage]:
    return [
        LabelledImage(FoundImage(Path(f"{index}.png"), f"{index}.png"), label, SOURCES[index])
        for index, label in enumerate(LABELS.tolist())
    ]


def test_every_source_is_compared_with_all_real_images_and_with_the_control(make):
    reconstruction = make(LABELS)
    one, control = detector("bands", reconstruction), detector("image", reconstruction)
    results = [
        FileResult(found=image.found, reconstruction=reconstruction[index : index + 1])
        for index, image in enumerate(images())
    ]
    lost = [LabelledImage(FoundImage(Path(name), name), 0, "real") for name in ("z.png", "y.png")]
    results += [FileResult(found=image.found, reason=f"{image.found.name}: is empty") for image in lost]
    evaluation = evaluate(judge_results(one, control, [*images(), *lost], reversed(results)))

    assert (evaluation.input, evaluation.control_input) == ("bands", "image")
    assert evaluation.skipped == ("y.png: is empty", "z.png: is empty")
    assert [comparison.source for comparison in evaluation.comparisons] == ["all", "ddim", "ddpm"]
    for comparison in evaluation.comparisons:
        taken = [k for k, source in enumerate(SOURCES) if comparison.source in ("all", source) or source == "real"]
        labels = LABELS.numpy()[taken]
        for which, performance in ((one, comparison.detector), (control, comparison.control)):
            assert performance is not None
            scores = which.probabilities(reconstruction)[taken]
            told = performance.figures
            assert (told.num_real, told.num_generated) == (20, len(taken) - 20)
            assert told.auc.value == pytest.approx(roc_auc(labels, scores))
            assert told.accuracy == pytest.approx(
                np.mean([((scores >= 0.5) == labels)[labels == k].mean() for k in (0, 1)])
            )
            decisions = [
                which.decide(*pair) for pair in zip(scores, which.distances(reconstruction)[taken], strict=True)
            ]
            counts = Counter(zip(labels.tolist(), (decision for decision, _ in decisions), strict=True))
            num_generated = len(taken) - 20
            wrong = (counts[0, "generated"] / 20, counts[1, "real"] / num_generated)
            decided = 1 - (counts[0, "unsure"] / 20 + counts[1, "unsure"] / num_generated) / 2
            assert performance.decisions == Decisions(
                real_called_generated=wrong[0],
                generated_called_real=wrong[1],
                decided=pytest.approx(decided),
                errors=pytest.approx(sum(wrong) / 2 / decided),
                unfamiliar=pytest.approx(sum(reason == UNFAMILIAR for _, reason in decisions) / len(taken)),
            )
    assert {(one.label, one.group): one.num_images for one in evaluation.groups} == {
        ("real", "real"): 20,
        ("generated", "ddim"): 10,
        ("generated", "ddpm"): 10,
    }
    assert all(one.real + one.unsure + one.generated == pytest.approx(1) for one in evaluation.groups)
    assert [(one.label, one.group, one.num_images) for one in evaluation.codecs] == [
        ("real", "unknown", 20),
        ("generated", "unknown", 20),
    ]
    shares = evaluation.comparisons[0].detector.decisions
    assert 0 < shares.unfamiliar < 1 - shares.decided  # the case holds every kind of decision
    assert shares.real_called_generated > 0
    assert shares.generated_called_real > 0


def test_the_roc_curves_are_those_of_detector_and_control_and_name_their_auc(make):
    reconstruction = make(LABELS)
    one, control = detector("bands", reconstruction), detector("image", reconstruction)
    results = [
        FileResult(found=image.found, reconstruction=reconstruction[index : index + 1])
        for index, image in enumerate(images())
    ]
    judged = judge_results(one, control, images(), results)
    curves = roc_curves(judged, evaluate(judged))
    of_detector, of_control = (roc_auc(LABELS.numpy(), which.probabilities(reconstruction)) for which in (one, control))
    assert [name.partition(" [")[0] for name in curves] == [
        f"bands, AUC {of_detector:.3f}",
        f"image (control), AUC {of_control:.3f}",
    ]
    areas = [np.trapezoid(found, false_alarms) for false_alarms, found in curves.values()]
    assert areas == pytest.approx([of_detector, of_control])

    alone = judge_results(one, None, images(), results)
    assert list(roc_curves(alone, evaluate(alone))) == list(curves)[:1]


def test_a_class_without_images_is_named_with_the_first_that_was_skipped():
    require_both_classes([0, 1], [])
    with pytest.raises(InputError, match=r"^none of the real images can be used$"):
        require_both_classes([1], [])
    with pytest.raises(InputError, match=r"^none of the generated images can be used; the first: a\.png: is empty$"):
        require_both_classes([0], ["a.png: is empty", "b.png: is empty"])


def performance(num_generated: int, auc: float) -> Performance:
    return Performance(
        figures=Figures(
            num_real=20,
            num_generated=num_generated,
            auc=Interval(value=auc, low=auc - 0.1, high=auc + 0.05),
            average_precision=0.9,
            accuracy=0.85,
            real_accuracy=0.8,
            generated_accuracy=0.9,
            tpr_at_1_percent_fpr=0.25,
            tpr_at_5_percent_fpr=0.5,
            calibration_error=0.0314,
            brier=0.125,
        ),
        decisions=Decisions(
            real_called_generated=0.05, generated_called_real=0.1, decided=0.6, errors=0.125, unfamiliar=0.02
        ),
    )


def test_the_table_has_a_line_for_the_detector_and_one_for_its_control():
    comparisons = (
        Comparison(source="all", detector=performance(1000, 0.95), control=performance(1000, 0.7)),
        Comparison(source="ddim", detector=performance(7, 0.9), control=performance(7, 0.6)),
    )
    groups = (
        GroupDecisions(label="generated", group="ddim", num_images=7, real=0.125, unsure=0.25, generated=0.625),
        GroupDecisions(label="real", group="real", num_images=20, real=0.5, unsure=0.45, generated=0.05),
    )
    codecs = tuple(replace(group, group="PNG") for group in groups)
    evaluation = Evaluation(input="bands", control_input="image", comparisons=comparisons, groups=groups, codecs=codecs)
    figures = "  0.900  0.850     0.800    0.900         0.250   0.500   0.031  0.125"
    decisions = "  5.0%          10.0%   60.0%    12.5%   2.0%"
    lines = [
        "generated by  input            images   AUC [95 %]            AP     accuracy  of real  of generated  TPR@1%  "
        "TPR@5%  ECE    Brier",
        f"all           bands            20+1000  0.950 [0.850, 1.000]{figures}",
        f"              image (control)  20+1000  0.700 [0.600, 0.750]{figures}",
        f"ddim          bands            20+7     0.900 [0.800, 0.950]{figures}",
        f"              image (control)  20+7     0.600 [0.500, 0.650]{figures}",
        "",
        "generated by  input            false alarms  missed  decided  errors  unfamiliar",
        f"all           bands          {decisions}",
        f"              image (control){decisions}",
        f"ddim          bands          {decisions}",
        f"              image (control){decisions}",
        "",
        "class      group  images  real   unsure  generated",
        "generated  ddim   7       12.5%  25.0%   62.5%",
        "real       real   20      50.0%  45.0%   5.0%",
    ]
    assert evaluation_table(evaluation).splitlines() == lines
    assert list(evaluation_tables(evaluation)) == ["Figures", "Decisions", "Decisions by group"]
    several = replace(evaluation, codecs=(*codecs, replace(groups[1], group="JPEG")))
    assert list(evaluation_tables(several))[-1] == "Decisions by file format"
    assert evaluation_table(several).splitlines()[-4:] == [
        "class      format  images  real   unsure  generated",
        "generated  PNG     7       12.5%  25.0%   62.5%",
        "real       PNG     20      50.0%  45.0%   5.0%",
        "real       JPEG    20      50.0%  45.0%   5.0%",
    ]


def test_without_a_control_there_are_no_lines_of_one(make):
    reconstruction = make(LABELS)
    results = [
        FileResult(found=image.found, reconstruction=reconstruction[index : index + 1])
        for index, image in enumerate(images())
    ]
    evaluation = evaluate(judge_results(detector("bands", reconstruction), None, images(), results))
    assert evaluation.control_input is None
    assert {comparison.control for comparison in evaluation.comparisons} == {None}
    table = evaluation_table(evaluation)
    assert "control" not in table
    assert [line.split()[:2] for line in table.splitlines()[1:4]] == [
        [name, "bands"] for name in ("all", "ddim", "ddpm")
    ]


def test_an_image_with_a_score_that_is_not_a_number_is_skipped_by_name(make):
    reconstruction = make(LABELS[:4])
    one, control = detector("bands", reconstruction), detector("lpips", reconstruction)
    lost = replace(reconstruction, x_0_hat=reconstruction.x_0_hat * float("nan"))
    lost_by_control = replace(reconstruction, lpips=reconstruction.lpips * float("nan"))
    results = [
        FileResult(found=image.found, reconstruction=source[index : index + 1])
        for index, (image, source) in enumerate(
            zip(images()[:4], (lost, lost_by_control, reconstruction, reconstruction), strict=True)
        )
    ]
    for of_control, kept in ((None, [1, 2, 3]), (control, [2, 3])):
        judged = judge_results(one, of_control, images()[:4], results)
        assert [image.image.found.name for image in judged.images] == [f"{number}.png" for number in kept]
        left_out = [number for number in range(4) if number not in kept]
        assert judged.skipped == tuple(f"{number}.png: the detector's score is not a number" for number in left_out)


def test_the_verdicts_that_are_shown_have_their_evidence(tmp_path: Path):
    model = unet()
    save_noise(tmp_path, 3)
    one, labelled = unsure_detector(model), [LabelledImage(found, 0, "a") for found in find_images([tmp_path])]
    told: list[tuple[str, int, int]] = []
    shown: list[Verdict] = []
    judged = judge_labelled(
        model,
        labelled,
        one,
        one,
        show=shown.append,
        progress=lambda label, done, total, note="": told.append((label, done, total)),
    )
    assert told == [("judge", done, 3) for done in range(4)]
    assert [verdict.file for verdict in shown] == ["00.png", "01.png", "02.png"]
    for verdict, result in zip(shown, judged.images, strict=True):
        assert verdict.contributions
        assert verdict.evidence is not None
        assert verdict.evidence.original is not None
        assert result.detector == result.control == Outcome(verdict.probability, verdict.decision, verdict.reason)
        assert result.codec == "PNG"
    assert judge_labelled(model, labelled, one, one, batch_size=1, workers=1).images == judged.images


def test_the_detector_of_another_model_is_refused_before_the_work():
    model = unet()
    other = replace(unsure_detector(model), settings=replace(unsure_detector(model).settings, model_sha256="1" * 64))
    with pytest.raises(SettingsMismatch, match="model_sha256=0"):
        judge_labelled(model, images(), other, None)


def test_photographs_and_images_of_one_generator_are_groups_of_their_own_class():
    judged = JudgedImages(
        input="bands",
        control_input=None,
        images=tuple(
            Judged(
                LabelledImage(FoundImage(Path(f"{number}.png"), f"{number}.png"), number % 2, f"{name}/val"),
                "PNG",
                Outcome(0.2 + 0.6 * (number % 2), "generated" if number % 2 else "real", None),
                None,
            )
            for number, name in enumerate(["adm"] * 4 + ["sdv4"] * 4)
        ),
    )
    evaluation = evaluate(judged)
    assert [(comparison.source, comparison.detector.figures.num_real) for comparison in evaluation.comparisons] == [
        *(("all", 4), ("adm", 4), ("sdv4", 4))
    ]
    assert [(one.label, one.group, one.num_images) for one in evaluation.groups] == [
        *(("real", "adm", 2), ("real", "sdv4", 2), ("generated", "adm", 2), ("generated", "sdv4", 2))
    ]
    assert evaluation.comparisons[0].detector.decisions.decided == 1


def results_of(decisions: dict[str, list[Decision]], codec: str = "PNG") -> JudgedImages:
    """Images with these decisions by class."""
    return JudgedImages(
        input="bands",
        control_input=None,
        images=tuple(
            Judged(
                LabelledImage(FoundImage(Path(f"{name}{index}"), f"{name}{index}"), int(name == "generated"), name),
                codec,
                Outcome(0.5, decision, UNFAMILIAR if decision == "unsure" else None),
                None,
            )
            for name, made in decisions.items()
            for index, decision in enumerate(made)
        ),
        skipped=("a.png: is empty", "b.png: is empty"),
    )


def test_the_shares_of_a_group_are_those_of_its_decisions():
    made: list[Decision] = ["real"] * 4 + ["unsure"] * 3 + ["generated"]
    [group, _] = evaluate(results_of({"real": made, "generated": ["unsure"]})).groups
    assert group == GroupDecisions(label="real", group="real", num_images=8, real=4 / 8, unsure=3 / 8, generated=1 / 8)


def test_without_a_decision_there_are_no_errors():
    evaluation = evaluate(results_of({"real": ["unsure"] * 2, "generated": ["unsure"] * 3}))
    assert evaluation.comparisons[0].detector.decisions == Decisions(
        real_called_generated=0, generated_called_real=0, decided=0, errors=0, unfamiliar=1
    )
    scores = {"a": tuple(np.linspace(0, 1, 50).tolist())}
    points = coverage(results_of({"real": ["unsure"], "generated": ["unsure"]}), LeftOut(real=scores, generated=scores))
    assert {(point.real_decided, point.real_errors) for point in points} == {(0, None)}
    assert {(point.generated_decided, point.generated_errors) for point in points} == {(0, None)}


def test_images_of_one_class_have_no_evaluation():
    with pytest.raises(InputError, match=r"^none of the generated images can be used; the first: a\.png: is empty$"):
        evaluate(results_of({"real": ["real"]}))


def test_decisions_are_given_by_the_format_of_the_file(make):
    reconstruction = make(LABELS[:2])
    results = [
        FileResult(
            found=image.found,
            reconstruction=reconstruction[index : index + 1],
            meta=FileMeta(sha256="", codec=codec, size=(16, 16)),
        )
        for index, (image, codec) in enumerate(zip(images()[:2], ("JPEG", "PNG"), strict=True))
    ]
    evaluation = evaluate(judge_results(detector("bands", reconstruction), None, images()[:2], results))
    assert [(one.label, one.group) for one in evaluation.codecs] == [("real", "JPEG"), ("generated", "PNG")]


def test_coverage_is_what_the_thresholds_of_each_limit_decide():
    scores = {"real": np.linspace(0, 0.8, 50), "generated": np.linspace(0.2, 1, 50)}
    left_out = LeftOut(**{name: {"a": tuple(values.tolist())} for name, values in scores.items()})
    judged = tuple(
        Judged(
            LabelledImage(FoundImage(Path(f"{name}{index}"), f"{name}{index}"), int(name == "generated"), name),
            "PNG",
            Outcome(score, "unsure", UNFAMILIAR if index == 0 else None),
            None,
        )
        for name, values in scores.items()
        for index, score in enumerate(values.tolist())
    )
    points = coverage(JudgedImages(input="bands", control_input=None, images=judged), left_out)
    assert [point.limit for point in points] == [percent / 100 for percent in range(2, 50)]  # 1 / 51 is the smallest
    for point in points:
        thresholds = left_out.thresholds(point.limit, point.limit)
        real, generated = ([thresholds.decide(score) for score in values[1:]] for values in scores.values())
        # The first image of each class is unfamiliar, and unsure with every limit.
        assert point.real_decided == pytest.approx(sum(one != "unsure" for one in real) / 50)
        assert point.generated_decided == pytest.approx(sum(one != "unsure" for one in generated) / 50)
        decided = sum(one != "unsure" for one in real)
        assert point.real_errors == (pytest.approx(real.count("generated") / decided) if decided else None)
        decided = sum(one != "unsure" for one in generated)
        assert point.generated_errors == (pytest.approx(generated.count("real") / decided) if decided else None)
    assert points[0].real_decided < points[-1].real_decided
    assert points[-1].real_errors
    assert points[-1].generated_errors


def test_limits_that_the_left_out_scores_do_not_support_have_no_coverage():
    many = tuple(np.linspace(0, 1, 50).tolist())
    for real, generated in (((0.5,) * 19, many), (many, (0.5,) * 19)):
        points = coverage(
            results_of({"real": ["real"], "generated": ["real"]}), LeftOut(real={"a": real}, generated={"b": generated})
        )
        assert [point.limit for point in points] == [percent / 100 for percent in range(5, 50)]  # 1 / 20 is enough
